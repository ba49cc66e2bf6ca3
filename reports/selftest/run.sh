#!/bin/sh
# The self-test on hf and vllm in bf16, on the shipped checkpoint: sh reports/selftest/run.sh
set -e
here=$(dirname "$0")
"${PROBE:-.venv/bin/mismatch-probe}" selftest --out selftest-out
cp selftest-out/selftest.md selftest-out/selftest.json "$here"
