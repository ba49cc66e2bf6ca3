#!/bin/sh
# The retokenisation study: a small policy is taught to call tools, a real vllm draws its rollouts, both
# roads are taken, and hf and vllm score what comes back.
#
#   make smollm2 && sh reports/retokenize/run.sh models/smollm2-135m-deq-q4_1 OUT
#
# About an hour on two cores. Every step that draws or scores resumes.
set -eu
base=$(cd "$1" && pwd)
mkdir -p "${2:-retokenize-out}"
out=$(cd "${2:-retokenize-out}" && pwd)
here=$(dirname "$0")
probe=${PROBE:-.venv/bin/mismatch-probe}
python=${PYTHON:-.venv/bin/python}

# 1. bfcl-eval's data; its code is never installed or imported.
if [ ! -d "$out/bfcl_eval" ]; then
    "$python" -m pip download -q --no-deps -d "$out" bfcl-eval==2026.3.23
    "$python" -m zipfile -e "$out"/bfcl_eval-*.whl "$out"
fi

# 2. A policy that calls tools: the checkpoint alone does so in one answer of twenty.
if [ ! -f "$out/policy.jsonl" ]; then
    "$python" "$here/material.py" policy "$out/bfcl_eval/data" "$base" "$out"
fi
engine=$("$probe" engines build hf 2>/dev/null)
"$engine" "$here/make_policy.py" "$base" "$out/policy.jsonl" "$out/policy"
model=$out/policy

# 3. First turns, then the second turns of the conversations whose first turn called a function,
#    then a second rollout of some prompts.
draw() {
    printf 'model = "%s"\nprompts = "prompts-%s.jsonl"\nmax_tokens = 96\nseed = %s\n' \
        "$model" "$1" "$1" > "$out/draw-$1.toml"
    printf 'paths = ["rollout"]\nfloor = "none"\n' >> "$out/draw-$1.toml"
    printf '[train]\nengine = "hf"\n[infer]\nengine = "vllm"\ndtype = "bf16"\neager = true\nbatch = 64\n' \
        >> "$out/draw-$1.toml"
    "$probe" capture "$out/draw-$1.toml" --only vllm-bf16-batch64-eager --out "$out/draw-$1"
}
corpus() { dirname "$(ls -d "$out/draw-$1"/corpus/*/MANIFEST.json)"; }
[ -f "$out/prompts-1.jsonl" ] ||
    "$python" "$here/material.py" prompts "$out/bfcl_eval/data" "$model" "$out"
draw 1
[ -f "$out/prompts-2.jsonl" ] || "$python" "$here/material.py" second "$(corpus 1)" "$model" "$out"
draw 2
"$python" "$here/material.py" again "$model" "$out"
draw 3
"$python" "$here/material.py" collect "$(corpus 1)" "$(corpus 2)" "$(corpus 3)" "$model" "$out"

# 4. Both roads, and what both engines make of what comes back.
"$probe" retokenize --model "$model" --rollouts "$out/rollouts.jsonl" \
    --chat-template "$here/hermes-tools.jinja" \
    --score hf:dtype=bf16,attention=sdpa --score vllm:dtype=bf16,eager=true --out "$out/study"
for file in retokenize.json retokenize.md retokenize.html; do cp "$out/study/$file" "$here/"; done
cp "$out/counts.json" "$here/"
