"""Digests of weights, with torch's own tensors: what rounding and a kernel's layout do to them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from mismatch.capture import launch
from mismatch.compare.preflight.weights import same
from tests.contract.conftest import built_python

ROUNDED = """
w = torch.tensor([[-2e-8, 1.5], [0.0, -1.0]])  # the first is a negative zero in fp16
said = {
    name: digests([("w", w.to(dtype))])["w"]
    for name, dtype in (
        ("fp32", torch.float32), ("fp16", torch.float16), ("fp8", torch.float8_e4m3fn)
    )
}
"""
SPLIT = """
class Linear(torch.nn.Module):
    output_partition_sizes = [4, 2, 2]

class Embedding(torch.nn.Module):
    pass

def model(weight):
    found = torch.nn.Module()
    found.qkv_proj = Linear()
    found.qkv_proj.weight = torch.nn.Parameter(weight)
    return found

said = {}
for name, shape in (("rows", (8, 16)), ("columns", (16, 8)), ("scale", ())):
    unread = {}
    live = lambda module, parameter: parameter
    found = unfused(model(torch.zeros(shape)), Linear, Embedding, live, unread)
    said[name] = [[n for n, _ in found], list(unread)]
"""


def _guest(folder: Path, code: str) -> Any:
    """What `said` is after the code ran beside mismatch.engines.weights, in hf's environment."""
    head = "import json, torch\nfrom mismatch.engines.weights import digests, unfused\n"
    done = subprocess.run(
        [str(built_python()), "-P", "-c", f"{head}{code}\nprint(json.dumps(said))"],
        env=launch.guest_environment(launch.stage_guest(folder, "hf"), {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_weight_that_rounds_to_a_negative_zero_is_the_same_weight(tmp_path: Path) -> None:
    """A fp32 trainer and a fp16 engine of one checkpoint hold the same weights, tiny ones too; and
    8-bit floats, to which torch adds nothing, have a digest."""
    said = _guest(tmp_path, ROUNDED)
    assert same(said["fp32"], said["fp16"]) is True
    assert said["fp8"].keys() == {"dtype", "float8_e4m3fn"}


def test_a_fused_weight_in_its_kernels_own_layout_is_not_read(tmp_path: Path) -> None:
    """Rows are split into the checkpoint's matrices; columns, or one scale for all, cannot be."""
    said = _guest(tmp_path, SPLIT)
    parts = [f".{part}.weight" for part in ("q_proj", "k_proj", "v_proj")]
    assert said["rows"] == [parts, []]
    assert said["columns"] == said["scale"] == [[], ["qkv_proj.weight"]]
