#!/bin/sh
# The data that the notebooks read, from the shipped checkpoint through real engines.
#
#   make engines && sh notebooks/data/make.sh [WORK]
#
# study/: hf in fp32 and bf16 and vllm in bf16 on 64 questions, sealed, with one attribution.
# prime-rl/, nemo-rl/: its bf16 values again, in the shapes that those trainers log.
# A few minutes on two cores. WORK (default notebooks-out) keeps the full run, and resumes.
set -eu
work=${1:-notebooks-out}
here=$(dirname "$0")
probe=${PROBE:-.venv/bin/mismatch-probe}
python=${PYTHON:-.venv/bin/python}

"$probe" run "$here/study.toml" --out "$work/study"
"$python" "$here/lighten.py" "$work/study" "$here/study"
"$python" "$here/trainers.py" "$here/study" 'hf-bf16~vllm-bf16.rollout' "$here"
