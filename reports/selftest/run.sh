#!/bin/sh
# The self-test on hf and vllm in bf16, on the shipped checkpoint: sh reports/selftest/run.sh
# With `sglang`, or with `vllm:url=http://127.0.0.1:8000` where a server of that checkpoint in bf16
# runs, it tries that engine: sh reports/selftest/run.sh sglang sglang
set -e
here=$(dirname "$0")
engine=${1:-vllm:dtype=bf16,eager=true} name=${2:-selftest}
"${PROBE:-.venv/bin/mismatch-probe}" selftest --engine "$engine" --out "selftest-out/$name"
cp "selftest-out/$name/selftest.md" "$here/$name.md"
cp "selftest-out/$name/selftest.json" "$here/$name.json"
