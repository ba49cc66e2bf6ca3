"""Make a run folder small enough to ship, and free of the machine it was made on.

    python notebooks/data/lighten.py FULL LIGHT

Every trace is checked, and sealed anew without job.json and worker.log, which name places on that
machine; in its provenance the checkpoint's path and the interpreter become plain names. The tables
hold the same values bit for bit and are packed tighter; topk.parquet is kept of the traces that a
pair compares alone, as floors and corners do not read it. What was compared is then measured again,
from these traces.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mismatch import api, store
from mismatch.compare.compare import read_run


def main(full: Path, light: Path) -> None:
    shutil.rmtree(light, ignore_errors=True)
    light.mkdir(parents=True)
    shutil.copyfile(full / "run.json", light / "run.json")
    for corpus in sorted((full / "corpus").iterdir()):
        store.verified(corpus, "corpus")
        store.copy_artifact(corpus, light / "corpus" / corpus.name)
    compared = {pair[side] for pair in read_run(full)["pairs"] for side in ("left", "right")}
    for manifest in sorted((full / "traces").glob("*/*/MANIFEST.json")):
        trace = manifest.parent
        about = store.verified(trace, "trace")
        name = f"{trace.parent.name}/{trace.name}"
        tables = ["tokens.parquet", *(["topk.parquet"] if name in compared else [])]
        target = store.trace_folder(light, name)
        store.seal(target, _filled(trace, tables), {"kind": "trace", "corpus": about["corpus"]})
    api.compare(light)
    for page in ("report.md", "report.html"):  # `mismatch-probe report` writes them
        (light / page).unlink()


def _filled(trace: Path, tables: list[str]) -> Callable[[Path], None]:
    """Writes the trace's values and its provenance without places."""

    def fill(aside: Path) -> None:
        for name in tables:
            _pack(trace / name, aside / name)
        provenance = store.read_provenance(trace)
        provenance["model"]["path"] = provenance["model"]["name"]
        provenance["interpreter"] = "python"
        (aside / "provenance.json").write_text(store.dump_json(provenance), encoding="utf-8")

    return fill


def _pack(source: Path, target: Path) -> None:
    """The same table in two thirds of the bytes: exponents beside exponents, counts as steps."""
    table = store.read_table(source)
    split = {f.name: "BYTE_STREAM_SPLIT" for f in table.schema if pa.types.is_float32(f.type)}
    steps = dict.fromkeys(("sequence_id", "position"), "DELTA_BINARY_PACKED")
    encoding = {**split, **steps}
    rest = [name for name in table.column_names if name not in encoding]
    pq.write_table(
        table, target, compression="zstd", compression_level=19, use_dictionary=rest,
        column_encoding=encoding,
    )  # fmt: skip
    assert pq.read_table(target).equals(table)  # no value here is NaN


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
