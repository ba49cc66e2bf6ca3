# %% [markdown]
# # Your trainer has logged it already
#
# prime-rl exports token files, NeMo-RL writes `train_data_step{N}.jsonl` by default. Both hold the
# ids and both sides' log-probabilities: no engine is needed to measure them.
#
# **What is real here:** the values are those of two real engines (the bf16 pair of `data/study`).
# The file shapes are the trainers'; neither trainer ran (`data/trainers.py` wrote them).

# %%
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mismatch import api

plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
OUT = Path(tempfile.mkdtemp())
DUMPS = {"prime-rl": "data/prime-rl", "nemo-rl": "data/nemo-rl"}

for file in ("prime-rl/token_exports/step_1/rank_0.jsonl", "nemo-rl/train_data_step1.jsonl"):
    with open(f"data/{file}") as lines:
        row = json.loads(next(lines))
    print(f"{file}\n    {', '.join(row)}")

# %% [markdown]
# ## One call each

# %%
for name, folder in DUMPS.items():
    api.import_dumps(name, folder, OUT / name)

runs = {"study": "data/study", **{name: OUT / name for name in DUMPS}}
keys = ["tokens", "sequences", "sampled_by", "k3", "k3_low", "k3_high", "floor", "noise"]
pairs = pd.concat({name: api.pairs(run) for name, run in runs.items()}, names=["read from"])
bf16 = pairs[pairs["left"].isin(["hf-bf16", "recorded-train"])]
bf16.droplevel(1)[keys]

# %% [markdown]
# The same tokens and the same k3 through three doors. What a dump lacks shows: nobody says who drew
# the ids (`unknown`, so k3 is a distance on these tokens, not a KL), and without a second capture
# there is no floor: `no floor` is not a pass.

# %%
tokens = {name: api.tokens(run, bf16.loc[name, "id"].iloc[0]) for name, run in runs.items()}
for name in DUMPS:
    assert np.array_equal(tokens[name]["d"], tokens["study"]["d"]), name
print(f"{len(tokens['study']):,} values of d, equal bit for bit")

# %% [markdown]
# ## The same formula under another name
#
# Lay the right column beside your dashboard. `d = lp_train - lp_infer` here.

# %%
NAMES = [
    ("k3", "prime-rl", "mismatch_kl"),
    ("k3", "NeMo-RL", "gen_kl_error"),
    ("k3", "verl", "rollout_corr/k3_kl"),
    ("k3_rev", "NeMo-RL", "policy_kl_error"),
    ("mult_prob_error", "NeMo-RL", "token_mult_prob_error"),
    ("k1", "slime (example)", "mismatch_kl"),
    ("abs_logprob_diff_mean", "TRL", "sampling_logp_difference"),
    ("abs_logprob_diff_mean", "SkyRL", "rollout_train_logprobs_abs_diff_mean"),
    ("prob_diff_mean", "verl", "rollout_probs_diff_mean"),
    ("prob_pearson", "verl", "rollout_actor_probs_pearson_corr"),
]
metrics = api.metrics(OUT / "nemo-rl").set_index("key")
table = pd.DataFrame(NAMES, columns=["ours", "trainer", "its name"])
table.join(metrics[["formula", "space", "value"]], on="ours")

# %% [markdown]
# One name, two numbers: `mismatch_kl` is k3 in prime-rl and k1 in slime's example. And one idea,
# two spaces: verl's difference is of *probabilities*.

# %% [markdown]
# ## Same formula, other denominator, other sign
#
# A mean over all tokens is not a mean of sequence means (slime), nor a mean over ranks or steps.
# AReaL and torchtitan take `d` the other way round, so k1 flips its sign and k3 becomes `k3_rev`.

# %%
frame = tokens["study"]
frame["k3"] = np.expm1(frame["d"]) - frame["d"]
frame["step"] = np.where(frame["sequence_id"] < frame["sequence_id"].nunique() / 2, 1, 2)
flipped = np.expm1(-frame["d"]) + frame["d"]
ways = pd.Series({
    "mean over tokens": frame["k3"].mean(),
    "mean of sequence means": frame.groupby("sequence_id")["k3"].mean().mean(),
    "mean of step means": frame.groupby("step")["k3"].mean().mean(),
    "d the other way round": flipped.mean(),
})  # fmt: skip
assert np.isclose(ways["mean over tokens"], metrics.loc["k3", "value"])
assert np.isclose(ways["d the other way round"], metrics.loc["k3_rev", "value"])

figure, axes = plt.subplots(figsize=(7, 2.2))
axes.axvspan(metrics.loc["k3", "low"], metrics.loc["k3", "high"], color="#e8e8e8")
axes.plot(ways, range(len(ways)), "o", color="#0072B2")
axes.set_yticks(range(len(ways)), ways.index)
axes.set(xlabel="k3 (nats per token); grey: its 95% interval over sequences")
axes.set(xlim=(0, None), ylim=(len(ways) - 0.5, -0.5))
axes.ticklabel_format(axis="x", scilimits=(0, 0))
plt.show()

# %% [markdown]
# Here all four lie inside the interval, because the gap is alike in all sequences. One long bad
# sequence is enough to part them: lay like beside like, or compare intervals.

# %% [markdown]
# ## One step, one number, no interval

# %%
steps = frame.groupby("step").agg(sequences=("sequence_id", "nunique"), k3=("k3", "mean"))
steps

# %% [markdown]
# Nothing changed between the two steps, and the curve moves by a sixth. Both values lie inside the
# interval above: that is how much a dashboard's line wobbles by itself, at 32 sequences a step.
