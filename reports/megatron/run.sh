#!/bin/sh
# The studies of this folder, to the summaries kept beside them.
#
#   make smollm2 && sh reports/megatron/run.sh OUT
#
# Every step resumes.
set -eu
out=${1:-megatron-out}
here=$(dirname "$0")
probe=${PROBE:-.venv/bin/mismatch-probe}
"$probe" engines build megatron
python=$("$probe" engines build hf 2>/dev/null)

source=models/smollm2-135m-deq-q4_1
test -d models/smollm2-135m-padded ||
    "$python" scripts/variant.py pad-heads "$source" models/smollm2-135m-padded

for study in llama-gsm smollm2; do
    "$probe" run "$here/$study.toml" --out "$out/$study"
    mkdir -p "$here/$study"
    cp "$out/$study/summary.json" "$out/$study/report.md" "$out/$study/report.html" "$here/$study/"
done
