"""Write seeded reasoning prompts as JSONL `{"messages": [...]}` rows.

The questions are reasoning-gym's `gsm_symbolic` (Apache-2.0), generated from a seed:

    pip install reasoning-gym==0.1.25
    python scripts/make_prompts.py 64 7 > mismatch/shipped/demo-prompts.jsonl
    python scripts/make_prompts.py 64 11 > reports/smollm2-135m/prompts.jsonl
"""

from __future__ import annotations

import json
import sys

import reasoning_gym


def main() -> None:
    size, seed = int(sys.argv[1]), int(sys.argv[2])
    for entry in reasoning_gym.create_dataset("gsm_symbolic", size=size, seed=seed):
        print(json.dumps({"messages": [{"role": "user", "content": entry["question"]}]}))


if __name__ == "__main__":
    main()
