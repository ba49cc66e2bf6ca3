# %% [markdown]
# # Where does the gap live?
#
# A mean over tokens hides its shape. Cut by what a token is and where it stands, rounding and bugs
# look different: rounding sits on unlikely tokens, a bug at a place. Real bf16 rollouts, real bf16
# scores (`data/make.sh`).

# %%
import html

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML

from mismatch import api

plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
RUN, PAIR = "data/study", "hf-bf16~vllm-bf16.rollout"


def draw(by, name, axes):
    """Mean |d| and mean d of each bin, 95% over sequences; hollow: interval not trusted."""
    rows = api.breakdown(RUN, by, PAIR)
    for key, shift, color in (("abs_logprob_diff_mean", -0.1, "#0072B2"),
                              ("logprob_diff_mean", 0.1, "#D55E00")):  # fmt: skip
        bounds = (rows[[f"{key}_low", f"{key}_high"]].T - rows[key]).abs().to_numpy()
        at = np.arange(len(rows)) + shift
        label = {"abs_logprob_diff_mean": "mean |d|"}.get(key, "mean d")
        axes.errorbar(at, rows[key], bounds, fmt="o", color=color, markersize=4, label=label)
        doubt = ~rows[f"{key}_trusted"]
        axes.plot(at[doubt], rows[key][doubt], "o", color="white", markersize=2.5, zorder=9)
    labels = [f"{row.bin}\nn={row.tokens:,}" for row in rows.itertuples()]
    axes.set_xticks(range(len(rows)), labels, fontsize=8)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xlabel=name, ylabel="nats per token")


# %% [markdown]
# ## Unlikely tokens?

# %%
figure, axes = plt.subplots(figsize=(7.5, 3))
draw("probability", "vllm's probability of the token it drew", axes)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# Yes. Tokens below 1% move by 0.04 nats, tokens above 99% by 0.0001, and `mean d` is 0 within its
# interval everywhere. That is the shape of rounding: logits move alike, and the log-probability of
# a sure token hardly follows.

# %% [markdown]
# ## A place in the answer, long answers, a kind of token?

# %%
figure, places = plt.subplots(1, 3, figsize=(11, 3.2), sharey=True, width_ratios=(2, 1.4, 2.4))
draw("position", "position in the answer", places[0])
draw("length", "length of the answer (tokens)", places[1])
draw("token_type", "kind of token", places[2])
places[0].legend(frameon=False)
for axes in places[1:]:
    axes.set_ylabel("")
figure.tight_layout()
plt.show()

# %% [markdown]
# The first 16 tokens have twice the gap of those after 64, and digits five times that of white
# space. Hollow: interval not trusted. Few answers are short, so length says little here.

# %% [markdown]
# ## Or is it only how sure the model is?
#
# A place where tokens are hard to guess has a larger gap for that reason alone. Median |d| early
# and late, at equal probability, in thousandths of a nat:

# %%
tokens = api.tokens(RUN, PAIR)
tokens["size"] = tokens["d"].abs()
tokens["probability"] = np.exp(tokens["lp_infer"])
start = tokens.groupby("sequence_id")["position"].transform("min")
tokens["half"] = np.where(tokens["position"] - start < 32, "first 32 tokens", "later")
tokens["bin"] = np.digitize(tokens["probability"], [0.1, 0.5, 0.9, 0.99])
table = tokens.pivot_table("size", "half", "bin", "median")
table.columns = ["p < 0.1", "0.1 to 0.5", "0.5 to 0.9", "0.9 to 0.99", "above"]
(1000 * table).round(2)

# %% [markdown]
# At equal probability little of the factor of two is left: the start of an answer is harder to
# guess, not computed otherwise. A bug at a place (a padded row, a cache that wraps) would stay.

# %% [markdown]
# ## Read the worst ones
#
# The sequences with the largest |d|, token by token: blue where the trainer finds a token likelier
# than the sampler did, orange where less. Hover for the numbers. What a model wrote is escaped: a
# `<script>` in it stays text.

# %%
EDGES = np.log([1.02, 1.1, 1.5, 2])  # |d|, as ratios


def visible(text, token_id):
    """A token's text with its white space shown; its id where no tokenizer told it."""
    if pd.isna(text):
        return f"[{token_id}]"
    text = text.replace(" ", "·").replace("\n", "⏎")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def token(row):
    """One token as HTML. Nothing of the model's text goes in unescaped."""
    strength = np.digitize(abs(row.d), EDGES) * 0.2
    color = f"rgba({'0, 114, 178' if row.d > 0 else '213, 94, 0'}, {strength:.1f})"
    train, infer = np.exp([row.lp_train, row.lp_infer])
    about = f"d = {row.d:+.4f}, p train {train:.3f}, p infer {infer:.3f}"
    said = html.escape(visible(row.text, row.token_id))
    return f'<span title="{html.escape(about)}" style="background: {color}">{said}</span>'


def viewer(tokens, sequences):
    """Their tokens, worst sequence first."""
    parts = []
    for number in sequences:
        rows = tokens[tokens["sequence_id"] == number]
        worst = rows.loc[rows["d"].abs().idxmax()]
        said = html.escape(visible(worst["text"], worst["token_id"]))
        head = f"sequence {number}: |d| up to {abs(worst['d']):.3f}, at <b>{said}</b>"
        body = "<wbr>".join(token(row) for row in rows.itertuples())
        parts.append(f'<p style="margin-top: 1em">{head}</p><code>{body}</code>')
    return HTML("".join(parts))


worst = tokens.groupby("sequence_id")["size"].max().nlargest(4).index
viewer(tokens, worst)

# %% [markdown]
# Ordinary words and digits in ordinary (bad: the policy has 0.8 million weights) answers. None
# stands at the edge of a mask or on a tag of the template, and they do not come in runs: nothing to
# mend here. And a hostile answer:

# %%
hostile = tokens.head(3).assign(text=["<script>alert(1)</script>", '" onmouseover="x', None])
assert "<script" not in viewer(hostile, [hostile["sequence_id"].iloc[0]]).data
viewer(hostile, [hostile["sequence_id"].iloc[0]])
