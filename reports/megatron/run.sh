#!/bin/sh
# The study of this folder on the shipped checkpoint, to the summary kept beside it.
#
#   make engines && sh reports/megatron/run.sh OUT
#
# Every step resumes.
set -eu
out=${1:-megatron-out}
here=$(dirname "$0")
probe=${PROBE:-.venv/bin/mismatch-probe}
"$probe" engines build megatron
"$probe" run "$here/llama-gsm.toml" --out "$out/llama-gsm"
mkdir -p "$here/llama-gsm"
cp "$out/llama-gsm/summary.json" "$out/llama-gsm/report.md" "$here/llama-gsm/"  # the page is over 2 MB
