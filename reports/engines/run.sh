#!/bin/sh
# The studies of this folder on the shipped checkpoint, with a vllm and a sglang server started for
# them on this machine, to the summaries kept beside each file.
#
#   make engines && .venv/bin/mismatch-probe engines build sglang && sh reports/engines/run.sh OUT
#
# About 10 minutes on two quiet cores. Every step resumes.
set -eu
out=${1:-engines-out}
here=$(dirname "$0")
probe=${PROBE:-.venv/bin/mismatch-probe}
model=mismatch/shipped/llama-gsm-0.8m
vllm=$("$probe" engines build vllm 2>/dev/null)
sglang=$("$probe" engines build sglang 2>/dev/null)
mkdir -p "$out"

keep() {
    mkdir -p "$here/$1"
    cp "$out/$1/summary.json" "$out/$1/report.md" "$here/$1/"  # the pages are large
}

"$probe" run "$here/rollout.toml" --out "$out/rollout"
keep rollout

export HF_HUB_OFFLINE=1
VLLM_CPU_KVCACHE_SPACE=1 "$vllm" -P -m vllm.entrypoints.openai.api_server --model "$model" \
    --dtype bfloat16 --enforce-eager --host 127.0.0.1 --port 8000 > "$out/vllm-server.log" 2>&1 &
first=$!
SGLANG_USE_CPU_ENGINE=1 "$sglang" -P -m sglang.launch_server --model-path "$model" \
    --dtype bfloat16 --device cpu --attention-backend torch_native --disable-cuda-graph \
    --grammar-backend none --max-total-tokens 65536 --sleep-on-idle --host 127.0.0.1 --port 30000 \
    > "$out/sglang-server.log" 2>&1 &
second=$!
trap 'kill $first $second' EXIT
for port in 8000 30000; do
    until "$vllm" -c "import httpx; httpx.get('http://127.0.0.1:$port/health').raise_for_status()" \
        2>/dev/null; do
        kill -0 $first && kill -0 $second
        sleep 2
    done
done
"$probe" run "$here/prefill.toml" --out "$out/prefill"
keep prefill
