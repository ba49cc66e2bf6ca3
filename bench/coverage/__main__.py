"""`make coverage`: all cells, then the page."""

from __future__ import annotations

import os

# One thread for each process: two processes that spin on each other's cores take twice the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from bench.coverage import page, study

REPORT = study.ROOT / "reports" / "coverage"

if __name__ == "__main__":
    (REPORT / "README.md").write_text(page.page(study.run(REPORT / "cells")), encoding="utf-8")
