# %% [markdown]
# # How far apart are these two programs?
#
# One small policy, 64 questions. vllm drew the answers in bf16; Hugging Face transformers scored
# the *same ids*, once in bf16 and once in fp32. Everything below is read from `data/study`, a run
# folder of real engines on a CPU (`data/make.sh` made it). No engine is needed to read it.

# %%
# %matplotlib inline
import pandas as pd

from mismatch import api

pd.set_option("display.max_colwidth", None, "display.precision", 3)
RUN = "data/study"
BF16 = "hf-bf16~vllm-bf16.rollout"


def show(name, **how):
    """A figure of the run folder, large enough for a screen."""
    figure = api.figure(name, RUN, **how)
    figure.set_dpi(200)
    return figure


pairs = api.pairs(RUN).set_index("id")
pairs[["path", "tokens", "sequences", "sampled_by", "abs_logprob_diff_mean", "k3", "noise"]]

# %% [markdown]
# ## What does one token look like?
#
# `d = lp_train - lp_infer`, in nats, is the log of the importance ratio that a trainer would use.

# %%
show("hist", pair=BF16)

# %% [markdown]
# Half of all tokens move by less than 0.001 nats, one in a hundred by more than 10%, none by a
# factor of two. Both signs look alike: rounding, not a bias.

# %% [markdown]
# ## Is it more than noise?
#
# An engine also differs from *itself* when only the batch changes. That is the floor; what is above
# it is the gap between the programs.

# %%
show("gap")

# %%
floors = ["k3", "k3_low", "k3_high", "floor_left", "floor_right", "excess_k3", "excess_k3_low"]
pairs.set_index("left")[floors].T.map("{:.2e}".format)

# %% [markdown]
# The gap is 40 times the largest floor or more, and the excess lies above 0: more than noise.
# Floors this small live in a few sequences, so that their own intervals are not trusted (hollow
# markers); they are too small to matter to the excess. The fp32 trainer is *nearer* than the bf16
# one: `02-which-knob` has the reason.

# %% [markdown]
# ## May the number be believed?
#
# A one-position shift or a stale checkpoint looks like a large mismatch too. So every rung of the
# preflight comes before the number; `not checked` is not a pass.

# %%
rungs = api.preflight_rows(RUN)
rungs.groupby(["rung", "verdict"]).size().unstack(fill_value=0)

# %% [markdown]
# All pass. What each one saw of the bf16 pair:

# %%
rungs[(rungs["pair"] == BF16) & (rungs["verdict"] == "pass")][["rung", "evidence"]]

# %% [markdown]
# ## Which numbers are worth quoting?

# %%
metrics = api.metrics(RUN, BF16).set_index("key")
quoted = ["k3", "abs_logprob_diff_mean", "abs_logprob_diff_p99", "extreme_fraction_1.1"]
quoted += ["extreme_fraction_2", "ess_seq", "ess_half_length"]
metrics.loc[quoted, ["value", "low", "high", "trusted", "space", "formula"]]

# %% [markdown]
# Quote k3 with its interval and who drew the tokens, and `ess_half_length` for what it means: after
# about 1,300 tokens half of a sequence-level sample is gone. A factor of two was never seen, and 64
# sequences cannot rule out up to 6% of it: never seen is not 0.

# %% [markdown]
# ## Would CI let it pass?

# %%
verdict = api.gate(RUN, maximum=["k3=2e-3", "excess.k3=1e-3"], pair=BF16)
for rule in verdict["rules"]:
    print(f"{rule['verdict']:>12}  {rule['reason']}")

# %% [markdown]
# Both pass, since the *upper* bounds of their intervals are inside the limits. An interval that
# reaches across its limit, or is not trusted, would neither pass nor fail.
