#!/bin/sh
# Make the SmolLM2 checkpoint in the engines' environment; gguf is added beside it, not into it.
set -eu
target=$1
python=$(.venv/bin/mismatch-probe engines build hf 2>/dev/null)
extra=$(mktemp -d)
trap 'rm -rf "$extra"' EXIT
.venv/bin/python -m pip install -q --no-deps --target "$extra" gguf
PATH="$PWD/.venv/bin:$PATH" PYTHONPATH="$extra" "$python" scripts/make_smollm2.py "$target"
