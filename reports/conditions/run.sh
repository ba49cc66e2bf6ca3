#!/bin/sh
# The studies of this folder, from the SmolLM2 checkpoint to the summaries kept beside each file.
#
#   make smollm2 && sh reports/conditions/run.sh OUT
#
# About 40 minutes on two quiet cores. Every step resumes.
set -eu
out=${1:-conditions-out}
here=$(dirname "$0")
probe=${PROBE:-.venv/bin/mismatch-probe}
source=models/smollm2-135m-deq-q4_1
python=$("$probe" engines build hf 2>/dev/null)

padded=models/smollm2-135m-padded
test -d "$padded" || "$python" scripts/variant.py pad-heads "$source" "$padded"
test -d "$padded-planted" || "$python" scripts/variant.py scale-norm "$padded" "$padded-planted"

for study in parallel attribution fp8 sampling penalty support; do
    "$probe" run "$here/$study.toml" --out "$out/$study"
    mkdir -p "$here/$study"
    cp "$out/$study/summary.json" "$out/$study/report.md" "$out/$study/report.html" "$here/$study/"
done
