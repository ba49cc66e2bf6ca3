"""Guest half of sglang: roll out, force the same ids through decode, score them as a prompt.

Requests go to sglang's Engine in this process; its scheduler runs in processes of its own, one for
each rank, where rank.py forces ids and reads facts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import wire
from mismatch.engines import observe, tokens
from mismatch.engines.sglang import answers, arguments, facts, forcing

#: How often the requests that have ended are counted, for progress.
COUNT_EVERY_S = 1.0
#: How long after its last answer the engine may take to be idle.
IDLE_WITHIN_S = 60.0


class Worker:
    """See mismatch.engines.guest for the contract."""

    def __init__(self, job: wire.Job, events: wire.Events) -> None:
        self.job, self.events = job, events
        self.request: dict[str, Any] = {}
        self._path = ""
        self._calls: set[int] = set()
        self._columns: set[int] = set()

    def load(self) -> None:
        import torch
        from sglang.srt.entrypoints import engine

        from mismatch.engines.sglang import rank

        class Engine(engine.Engine):  # type: ignore[misc]
            run_scheduler_process_func = staticmethod(rank.run)

        self.processor = rank.ForceIds.to_str()
        self.engine = Engine(**arguments.constructor(self.job, torch.cuda.is_available()))
        self._ranks("install")
        self.config = self.engine.tokenizer_manager.model_config

    def _ranks(self, verb: str, **given: Any) -> None:
        """Something done in every rank (see rank.py)."""
        try:
            self.engine.collective_rpc("mismatch", verb=verb, **given)
        except AssertionError as reason:  # sglang's way to say that a rank raised
            raise RuntimeError(f"a rank could not {verb}: {reason}") from reason

    def configure(self, options: dict[str, Any]) -> None:
        self.request = options
        self._calls, self._columns = set(), set()
        self._ranks("watch")

    @property
    def topk(self) -> int:
        return int(self.request.get("topk", 0))

    # ------------------------------------------------------------ tokens

    def encode(self, prompts: list[dict[str, Any]]) -> tuple[list[list[int]], dict[str, Any]]:
        ids, about = tokens.encode(self.engine.tokenizer_manager.tokenizer, prompts)
        assert self.job.sampling is not None
        tokens.check_room(ids, self.job.sampling["max_tokens"], self.config.context_len)
        return ids, about

    def texts(self, ids: list[int]) -> list[str]:
        return tokens.texts(self.engine.tokenizer_manager.tokenizer, ids)

    # ------------------------------------------------------------ the three paths

    def sample(
        self, prompts: list[np.ndarray], seeds: list[int]
    ) -> list[tuple[np.ndarray, wire.Values]]:
        """T = 1 over the whole support unless options say else; values are taken while sampling.

        One seed a call, set on the generator of every rank; sglang itself honours a request's seed
        in its deterministic mode alone, where each gets its own.
        """
        assert self.job.sampling is not None
        self._path = "rollout"
        self._ranks("seed", value=seeds[0])
        most = self.job.sampling["max_tokens"]
        params = [{"max_new_tokens": most, "sampling_seed": seed} for seed in seeds]
        said = self._generate([p.tolist() for p in prompts], params)
        drawn = [answers.drawn(answer, self.topk) for answer in said]
        self._count(values for _, values in drawn)
        return drawn

    def score(
        self, path: str, sequences: list[np.ndarray], first: list[int], asked: list[np.ndarray]
    ) -> list[wire.Values]:
        self._path = path
        more = asked[0].shape[1] if self.topk and path == "prefill" else 0
        values = [wire.blank(len(ids), self.topk + more) for ids in sequences]
        busy = [k for k, ids in enumerate(sequences) if first[k] < len(ids)]
        rows = [sequences[k].tolist() for k in busy]
        if path == "decode":
            found = self._decode(rows, [first[k] for k in busy]) if busy else []
        else:
            found = self._prefill(rows, [asked[k] if more else None for k in busy]) if busy else []
        self._count(found)
        for k, value in zip(busy, found, strict=True):
            values[k] = value
        return values

    def _decode(self, rows: list[list[int]], first: list[int]) -> list[wire.Values]:
        """One request a sequence, from its first scored token to the end, every id forced."""
        params = [
            {
                "max_new_tokens": len(ids) - start,
                "ignore_eos": True,
                "custom_params": {forcing.FORCE: ids},
            }
            for ids, start in zip(rows, first, strict=True)
        ]
        prompts = [ids[:start] for ids, start in zip(rows, first, strict=True)]
        said = self._generate(prompts, params, custom_logit_processor=self.processor)
        values = []
        for ids, start, answer in zip(rows, first, said, strict=True):
            got, found = answers.drawn(answer, self.topk)
            if got.tolist() != ids[start:]:
                raise RuntimeError("forced decode returned other ids than it was given")
            values.append(found.padded(start))
        return values

    def _prefill(self, rows: list[list[int]], asked: list[np.ndarray | None]) -> list[wire.Values]:
        """The whole sequence as a prompt; the one token it generates is thrown away (nothing
        generated, nothing sampled: its settings would be seen by nobody).
        """
        more: dict[str, Any] = {"logprob_start_len": 0}
        if any(ids is not None for ids in asked):
            more["token_ids_logprob"] = [None if i is None else answers.given(i) for i in asked]
        said = self._generate(rows, [{"max_new_tokens": 1}] * len(rows), **more)
        vocabulary = int(self.config.vocab_size)
        return [
            answers.prompted(answer, ids, vocabulary, self.topk, wanted)
            for answer, ids, wanted in zip(said, rows, asked, strict=True)
        ]

    def _count(self, values: Iterable[wire.Values]) -> None:
        self._columns |= {wire.columns(value, self.topk) for value in values}

    def _generate(
        self, rows: list[list[int]], params: Sequence[dict[str, Any]], **more: Any
    ) -> list[Any]:
        """One engine call from an empty radix cache, so that no call depends on an earlier one."""
        self._empty_cache()
        self._calls.add(len(rows))
        settings = arguments.sampling(self.request)
        with _Progress(self.engine.tokenizer_manager.rid_to_state, len(rows), self.events):
            said = self.engine.generate(
                input_ids=rows, sampling_params=[{**settings, **p} for p in params],
                return_logprob=True,
                top_logprobs_num=min(self.topk, int(self.config.vocab_size)), **more,
            )  # fmt: skip
        retracted = sum(answer["meta_info"].get("num_retractions", 0) for answer in said)
        if retracted:
            raise RuntimeError(
                f"{retracted} requests were retracted: this capture did not run in the batches it "
                "was given; raise arg.max_total_tokens (CPU) or arg.mem_fraction_static, or lower "
                "batch"
            )
        return list(said)

    def _empty_cache(self) -> None:
        """sglang refuses while it still puts the last step away, so it is given a while."""
        flush = self.engine.tokenizer_manager.flush_cache(timeout_s=IDLE_WITHIN_S)
        done = self.engine.loop.run_until_complete(flush)
        if not done.success:
            raise RuntimeError(f"the radix cache could not be emptied: {done.message}")

    # ------------------------------------------------------------ facts

    def facts(self) -> dict[str, Any]:
        folder = Path.cwd() / "ranks"
        folder.mkdir(exist_ok=True)
        for before in folder.glob("rank-*.json"):
            before.unlink()
        self._ranks("tell", folder=str(folder))
        ranks = [wire.read_json(p) for p in sorted(folder.glob("rank-*.json"))]
        calls, self._calls = sorted(self._calls), set()
        seen = wire.topk_seen(self.topk, self._columns, int(self.config.vocab_size))
        return {
            **facts.observed(ranks, self.engine.server_args, self._path, seen),
            "requests_per_call": calls,
            "versions": observe.versions(
                ("sglang", "sglang-kernel", "sgl-kernel", "torch", "transformers", "tokenizers")
            ),
            "env": observe.switches(),
        }

    def close(self) -> None:
        self.engine.shutdown()


class _Progress:
    """Ticks as requests end, so that the host sees life in a long call."""

    def __init__(self, waiting: dict[str, Any], total: int, events: wire.Events) -> None:
        self._waiting, self._total, self._events = waiting, total, events
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)

    def _count(self) -> None:
        done = 0
        while not self._over.wait(COUNT_EVERY_S):
            now = self._total - len(self._waiting)
            if now > done:
                done = now
                self._events.tick(done, self._total)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
