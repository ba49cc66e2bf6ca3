#!/bin/sh
# The studies of this folder, from the SmolLM2 checkpoint to the summaries kept beside each file.
#
#   make smollm2 && sh reports/claims/run.sh OUT
#
# About an hour on two quiet cores; one engine at a time. Every step resumes. With names behind OUT
# only those studies are taken. `make claims` then writes README.md.
set -eu
out=${1:-claims-out}
here=$(dirname "$0")
probe=${PROBE:-.venv/bin/mismatch-probe}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- injected lse switches shapes short lengths defaults sampler-bf16 sampler-fp8 \
    sampler-eager sampler-compiled greedy greedy-compiled routes routes-dense

for study in "$@"; do
    "$probe" run "$here/$study.toml" --out "$out/$study"
    mkdir -p "$here/$study"
    cp "$out/$study/summary.json" "$out/$study/report.md" "$here/$study/"  # the pages are large
done
# Both rollouts are there: do they fork where a replay of one says?
if [ -d "$out/greedy" ] && [ -d "$out/greedy-compiled" ]; then
    "$(dirname "$probe")/python" "$here/../../scripts/forks_by_hand.py" "$out/greedy" \
        "$out/greedy-compiled" > "$here/forks-by-hand.json"
fi
