"""The guest's side of bench/overhead.py: bare calls and captures in turn, in one loaded engine.

    python -m inside STAGING_FOLDER     -> results.json: path -> [[bare, capture] CPU seconds, ...]

Capture k of a path goes through the guest's own `_capture`: ids, calls, parts on disk, facts. The
bare call is the same request to the same live engine, with the answer thrown away.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mismatch import wire
from mismatch.engines import guest


def bare_hf(worker: Any, ids: list[list[int]], first: list[int]) -> dict[str, Callable[[], None]]:
    import torch

    model = worker.model

    def score() -> None:
        with torch.no_grad():
            for row in ids:
                tokens = torch.tensor([row])
                logits = model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
                torch.log_softmax(logits, -1).gather(1, tokens[0, 1:, None])

    return {"score": score}


def bare_vllm(worker: Any, ids: list[list[int]], first: list[int]) -> dict[str, Callable[[], None]]:
    """decode: as many tokens from the same prompts, sampled (forcing is the capture's own cost)."""
    from vllm import SamplingParams

    llm = worker.llm
    common = {"temperature": 1.0, "flat_logprobs": True, "detokenize": False}

    def decode() -> None:
        llm.reset_prefix_cache()
        params = [
            SamplingParams(max_tokens=len(r) - f, logprobs=0, ignore_eos=True, **common)
            for r, f in zip(ids, first, strict=True)
        ]
        prompts = [{"prompt_token_ids": r[:f]} for r, f in zip(ids, first, strict=True)]
        llm.generate(prompts, params, use_tqdm=False)

    def prefill() -> None:
        llm.reset_prefix_cache()
        params = SamplingParams(max_tokens=1, prompt_logprobs=0, **common)
        llm.generate([{"prompt_token_ids": r} for r in ids], params, use_tqdm=False)

    return {"decode": decode, "prefill": prefill}


def cpu_s(call: Callable[[], None]) -> float:
    before = time.process_time()
    call()
    return time.process_time() - before


def main(folder: Path) -> None:
    job, events = wire.read_job(folder), wire.Events(folder / "events.jsonl")
    worker = importlib.import_module(f"mismatch.engines.{job.engine}.worker").Worker(job, events)
    worker.load()
    ids, scored, _ = wire.load_sequences(folder / "corpus.npz")
    calls = {"hf": bare_hf, "vllm": bare_vllm}[job.engine](
        worker, [i.tolist() for i in ids], [int(s.argmax()) for s in scored]
    )
    stage = guest.Stage(events)
    results: dict[str, list[list[float]]] = {}
    for plan in job.captures:
        worker.configure(plan.options)

        def capture(plan: wire.CallPlan = plan) -> None:
            guest._capture(folder, job, plan, worker, [], stage, set())

        results.setdefault(plan.path, []).append([cpu_s(calls[plan.path]), cpu_s(capture)])
    wire.write_json(folder / "results.json", results)
    worker.close()
    stage.enter("done")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
