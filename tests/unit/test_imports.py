"""Who may import whom, read off the syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from mismatch.capture.launch import SHARED

ROOT = Path(__file__).parents[2] / "mismatch"

#: Each layer may import itself and the layers before it. Stages never import each other.
LAYERS = [
    {"errors"},
    {"model", "glossary", "kinds", "shapes"},
    {"store", "wire"},
    {"engines"},
    {"study", "study_file", "corners"},
    {"corpus", "capture", "compare", "report", "retokenize", "gate"},
    {"verbs", "selftest"},
    {"frames"},
    {"api"},
    {"progress", "screen"},
    {"cli"},
]
STAGES = LAYERS[5]
HEAVY = {"torch", "transformers", "vllm", "sglang", "megatron"}


def _modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def _imports(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def _part(dotted: str) -> str | None:
    """`mismatch.capture.run` -> `capture`."""
    words = dotted.split(".")
    return words[1] if words[0] == "mismatch" and len(words) > 1 else None


def _own(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_each_file_imports_only_its_own_layer_and_lower_ones(path: Path) -> None:
    """errors <- model <- {store, wire} <- engines <- stages <- api <- cli; stages never meet."""
    own = _own(path)
    if own == "__init__":
        return
    level = next(k for k, layer in enumerate(LAYERS) if own in layer)
    allowed = {own}.union(*LAYERS[:level])
    if own not in STAGES:
        allowed |= LAYERS[level]
    for dotted in _imports(path):
        part = _part(dotted)
        known = part in {name for layer in LAYERS for name in layer}
        assert not known or part in allowed, f"{path.name} imports {dotted}"


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_engines_are_imported_in_worker_files_alone(path: Path) -> None:
    """torch, transformers and the engines appear only in what a guest runs: the core pulls no
    torch.
    """
    heavy = {name.split(".")[0] for name in _imports(path)} & HEAVY
    inside = path.relative_to(ROOT).parts
    guests = len(inside) == 3 and inside[0] == "engines" and path.name != "engine.py"
    shared = (
        "distribution.py",
        "dtypes.py",
        "torchrun.py",
        "weights.py",
    )  # by the guests of several engines
    assert not heavy or guests or path.name in shared


@pytest.mark.parametrize(
    "path",
    sorted(p for p in ROOT.glob("engines/*/*.py") if p.name != "engine.py"),
    ids=lambda p: str(p.relative_to(ROOT / "engines")),
)
def test_guests_import_the_wire_and_their_own_engine_alone(path: Path) -> None:
    """What is staged for a guest is wire, the modules that engines share, and its own engine (a
    client's with the engine that it is a client of)."""
    ours = {d for d in _imports(path) if d.startswith("mismatch.")}
    name = path.parent.name
    own = {f"mismatch.engines.{n}" for n in (name, name.removesuffix("_server"))}
    foreign = {d for d in ours if not any(f"{d}.".startswith(f"{o}.") for o in own)}
    shared = {f"mismatch.engines.{name}" for name in SHARED}
    allowed = {"mismatch.wire", *shared}
    assert {d for d in foreign if not {d, d.rpartition(".")[0]} & allowed} <= {"mismatch.engines"}


def test_only_what_draws_imports_matplotlib() -> None:
    """Importing the command line or the api never waits for matplotlib: the figures import it, and
    they are imported inside the functions that draw."""
    for path in (p for p in _modules() if p.parent.name != "figures"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        at_once = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {f"{getattr(n, 'module', '')}.{a.name}" for n in at_once for a in n.names}
        assert not any("matplotlib" in n or n.endswith(".figures") for n in names), path


def test_pandas_is_imported_inside_a_function_alone() -> None:
    """The command line never waits for pandas, and only the frames know of it."""
    for path in _modules():
        at_once = {
            f"{getattr(node, 'module', '')}.{alias.name}"
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not any("pandas" in name for name in at_once), path
        assert path.name == "frames.py" or "pandas" not in _imports(path), path


def test_nothing_reads_a_pickle() -> None:
    """No module loads pickles or evaluates text as code."""
    for path in _modules():
        text = path.read_text(encoding="utf-8")
        names = _imports(path)
        assert not names & {"pickle", "dill", "joblib", "shelve", "marshal"}, path
        assert "allow_pickle=True" not in text, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile"}, path
