#!/bin/sh
# The SmolLM2-135M study, from the checkpoint folder to the summaries kept beside this file.
#
#   make smollm2 && sh reports/smollm2-135m/run.sh models/smollm2-135m-deq-q4_1 OUT
#
# About 45 minutes on two cores. Every step resumes.
set -eu
model=$1
out=${2:-smollm2-out}
here=$(dirname "$0")
probe=${PROBE:-.venv/bin/mismatch-probe}

# 1. Rolled out by vllm bf16 at T = 1; every path, both floors.
"$probe" run --model "$model" --train hf:dtype=bf16,attention=sdpa --infer vllm:dtype=bf16,eager=true \
    --prompts "$here/prompts.jsonl" --max-tokens 200 --repeats 2 --floor batch --out "$out/bf16"
corpus=$(dirname "$(ls -d "$out"/bf16/corpus/*/MANIFEST.json)")

# 2. The same ids with vllm compiled, as it runs when nobody says eager.
"$probe" run --model "$model" --train hf:dtype=bf16,attention=sdpa --infer vllm:dtype=bf16,eager=false \
    --corpus "$corpus" --repeats 1 --floor batch --out "$out/compiled"

# 3. vllm compiled against vllm eager, from the traces of two runs.
for path in decode prefill; do
    "$probe" compare "$out/compiled/traces/vllm-bf16-no_eager/$path-1" \
        "$out/bf16/traces/vllm-bf16-eager/$path-1" --out "$out/compiled-against-eager-$path"
done

# 4. The same ids with fp16 on both sides (slow: this CPU has no fp16 arithmetic).
"$probe" run --model "$model" --train hf:dtype=fp16,attention=sdpa --infer vllm:dtype=fp16,eager=true \
    --corpus "$corpus" --repeats 1 --floor batch --out "$out/fp16"

for name in bf16 fp16 compiled compiled-against-eager-decode compiled-against-eager-prefill; do
    mkdir -p "$here/$name"
    cp "$out/$name/summary.json" "$out/$name/report.md" "$out/$name/report.html" "$here/$name/"
done
