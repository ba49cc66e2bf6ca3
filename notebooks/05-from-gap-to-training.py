# %% [markdown]
# # What does the gap do to training?
#
# k3 is a distance. What a run feels is what importance weights leave of the batch, and that depends
# on length. Everything here is predicted from `d` alone: nothing is trained.

# %%
import matplotlib.pyplot as plt
import numpy as np

from mismatch import api

plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
RUN, PAIR = "data/study", "hf-bf16~vllm-bf16.rollout"

metrics = api.metrics(RUN, PAIR).set_index("key")
metrics.loc[["k3", "ess_token", "ess_seq", "ess_half_length", "clamp_length"],
            ["value", "low", "high", "trusted", "formula"]]  # fmt: skip

# %% [markdown]
# Token by token 99.95% of the sample is left: nothing to see. By sequences of 75 tokens it is 95%,
# and half is gone after about 1,300 tokens.

# %% [markdown]
# ## How fast does the sample go?
#
# A sequence's log-ratio is a sum over its tokens. The effective sample size of `exp(D)` over the
# first T tokens, measured, and `exp(-2 T k3)`, where d is small and independent:

# %%
ess = api.ess_by_length(RUN, PAIR)
half = metrics.loc["ess_half_length"]
length = np.geomspace(8, 4096, 200)
figure, axes = plt.subplots(figsize=(7, 3))
axes.plot(length, np.exp(-2 * length * metrics.loc["k3", "value"]), color="#999999",
          label="exp(-2 T k3)")  # fmt: skip
axes.fill_between(
    length,
    np.exp(-2 * length * metrics.loc["k3", "high"]),
    np.exp(-2 * length * metrics.loc["k3", "low"]),
    color="#e8e8e8", label="95% of k3",
)  # fmt: skip
bounds = (ess[["ess_low", "ess_high"]].T - ess["ess"]).abs().to_numpy()
axes.errorbar(ess["length"], ess["ess"], bounds, fmt="o", color="#0072B2", markersize=4,
              capsize=2, label="measured")  # fmt: skip
axes.axvline(half["value"], color="#D55E00", linewidth=1, linestyle="--")
axes.text(half["value"] * 0.93, 0.3, f"half gone: {half['value']:,.0f} tokens", color="#D55E00",
          ha="right")  # fmt: skip
axes.set(xscale="log", xlabel="T (tokens)", ylabel="ESS / n", ylim=(0, 1.05))
axes.set_xticks([10, 100, 1000], ["10", "100", "1,000"])
axes.legend(frameon=False, loc="lower left")
plt.show()

# %%
ess[["length", "sequences", "ess", "ess_low", "ess_high", "predicted"]]

# %% [markdown]
# Up to 64 tokens, where it was measured, the prediction holds. Right of that the curve is an
# extrapolation: these answers end at 80 tokens.

# %% [markdown]
# ## Which correction costs what?
#
# `affected` is what a rule cuts, drops or clips; `ess` is what its weights leave, counting what was
# dropped.

# %%
table = api.corrections(RUN, PAIR)
whole = table[table["length"] == "all"].set_index("name")
whole[["level", "rule", "affected", "affected_low", "affected_high", "ess", "ess_low", "ess_high"]]

# %%
figure, sides = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
for axes, key in zip(sides, ("affected", "ess"), strict=True):
    bounds = (whole[[f"{key}_low", f"{key}_high"]].T - whole[key]).abs().to_numpy()
    colors = whole["level"].map({"token": "#0072B2", "sequence": "#D55E00"})
    axes.barh(range(len(whole)), whole[key], color=colors, alpha=0.75)
    axes.errorbar(whole[key], range(len(whole)), xerr=bounds, fmt="none", color="black", capsize=2)
    axes.set(xlim=(0, 1.05), xlabel={"affected": "share affected", "ess": "ESS / n left"}[key])
sides[0].set_yticks(range(len(whole)), whole.index)
sides[0].invert_yaxis()
figure.suptitle("blue: of tokens, orange: of sequences; lines: 95% over sequences", fontsize=9)
figure.tight_layout()
plt.show()

# %% [markdown]
# Rules about single ratios (TIS, MIS, IcePop) have nothing to cut here. The two that look at the
# *mean* of d over a sequence, within 1e-3 and 3e-4, drop 70% and clip 92%: over 75 tokens that mean
# scatters by about 3e-3 from rounding alone. Bounds so narrow suit long answers and a smaller gap.

# %% [markdown]
# ## And at your length?

# %%
lengths = [256, 1024, 4096, 16384]
k3 = metrics.loc["k3"]
for T in lengths:
    left, low, high = (np.exp(-2 * T * k3[key]) for key in ("value", "high", "low"))
    print(f"{T:>6,} tokens: {left:8.2%} of the sequence-level sample left  [{low:.2%}, {high:.2%}]")

# %% [markdown]
# The gap that no token-level rule notices starves a sequence-level one at the lengths of reasoning.
# This is `exp(-2 T k3)`, not a measurement: replay answers of your own length before you believe
# the last row.
