"""torchrun, ended by the kernel when the host dies: `python -m ... RANKS -m MODULE ARGUMENTS`.

Started by the host for an engine whose ranks torch must start. Each rank is one guest. A rank that
dies ends the others (torch's elastic agent), with no restart.
"""

from __future__ import annotations

import sys

from mismatch.engines.guest import die_with_host


def main(ranks: str, arguments: list[str]) -> None:
    die_with_host()
    from torch.distributed.run import main as torchrun

    torchrun(["--standalone", "--nproc-per-node", ranks, "--max-restarts", "0", *arguments])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
