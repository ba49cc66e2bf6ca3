"""What each metric is, in words: the one table that measuring, gating and reporting share.

d = lp_train - lp_infer in nats, r = exp(d), D = a sequence's sum of d, R = exp(D).
"""

from __future__ import annotations

#: metrics.md: fewer sequences than this have no interval.
MIN_SEQUENCES = 8

#: key -> (space, formula, level), in the order of metrics.md.
METRICS: dict[str, tuple[str, str, str]] = {
    "k1": ("log", "mean(-d)", "token"),
    "k2": ("log", "mean(d²)/2", "token"),
    "k3": ("log", "mean(expm1(d) - d)", "token"),
    "k3_rev": ("log", "mean(expm1(-d) + d); not the reverse KL on infer's tokens", "token"),
    "abs_logprob_diff_mean": ("log", "mean |d|", "token"),
    "abs_logprob_diff_std": ("log", "standard deviation of |d|", "token"),
    "abs_logprob_diff_p50": ("log", "median of |d|", "token"),
    "abs_logprob_diff_p90": ("log", "90th percentile of |d|", "token"),
    "abs_logprob_diff_p99": ("log", "99th percentile of |d|", "token"),
    "abs_logprob_diff_p999": ("log", "99.9th percentile of |d|", "token"),
    "abs_logprob_diff_max": ("log", "largest |d|", "token"),
    "logprob_diff_mean": ("log", "mean d, the bias", "token"),
    "rms_logprob_diff": ("log", "sqrt(mean d²), the size", "token"),
    "prob_diff_mean": ("probability", "mean |p_train - p_infer|", "token"),
    "prob_diff_max": ("probability", "largest |p_train - p_infer|", "token"),
    "prob_diff_std": ("probability", "standard deviation of |p_train - p_infer|", "token"),
    "prob_pearson": ("probability", "correlation of p_train and p_infer", "token"),
    "mult_prob_error": ("ratio", "mean(exp |d|)", "token"),
    "ratio_mean": ("ratio", "mean r; alone it hides everything", "token"),
    "ratio_min": ("ratio", "smallest r", "token"),
    "ratio_max": ("ratio", "largest r", "token"),
    "ratio_p01": ("ratio", "1st percentile of r", "token"),
    "ratio_p99": ("ratio", "99th percentile of r", "token"),
    "extreme_fraction_1.1": ("ratio", "share with max(r, 1/r) > 1.1", "token"),
    "extreme_fraction_2": ("ratio", "share with max(r, 1/r) > 2", "token"),
    "extreme_fraction_3": ("ratio", "share with max(r, 1/r) > 3", "token"),
    "extreme_fraction_5": ("ratio", "share with max(r, 1/r) > 5", "token"),
    "extreme_fraction_10": ("ratio", "share with max(r, 1/r) > 10", "token"),
    "chi2_token": ("ratio", "mean(r²) - 1", "token"),
    "ess_token": ("ratio", "(Σr)²/(nΣr²)", "token"),
    "exact_fraction": ("share", "share with d == 0", "token"),
    "confident_disagreement": ("share", "share with p_infer >= 0.5 and d < -2", "token"),
    "seq_log_ratio_mean": ("log", "mean D", "sequence"),
    "seq_log_ratio_std": ("log", "standard deviation of D", "sequence"),
    "seq_log_ratio_p05": ("log", "5th percentile of D", "sequence"),
    "seq_log_ratio_p50": ("log", "median D", "sequence"),
    "seq_log_ratio_p95": ("log", "95th percentile of D", "sequence"),
    "seq_log_ratio_slope_per_1k": ("log", "slope of D on length, per 1 000 tokens", "sequence"),
    "seq_k1": ("log", "mean(-D)", "sequence"),
    "seq_chi2": ("ratio", "mean(R²) - 1", "sequence"),
    "ess_seq": ("ratio", "(ΣR)²/(nΣR²)", "sequence"),
    "seq_geo_ratio": ("ratio", "mean over sequences of exp(mean d)", "sequence"),
    "seq_max_prob_diff_mean": ("probability", "mean of each one's largest |Δp|", "sequence"),
    "seq_prob_diff_gt_0.5": ("count", "sequences with a |Δp| above 0.5", "sequence"),
    "log_ppl_diff": ("log", "mean over sequences of mean(-d)", "sequence"),
    "ppl_ratio": ("ratio", "mean over sequences of exp(mean(-d))", "sequence"),
    "seq_clamped_count": ("count", "sequences with |D| > 20, where verl clamps", "sequence"),
    "ess_half_length": ("tokens", "ln 2 / (2 k3): half of the sequence-level ESS gone", "sequence"),
    "clamp_length": ("tokens", "20 / k3: the mean of D reaches verl's clamp", "sequence"),
}


def token_keys() -> list[str]:
    """The keys that a floor has too."""
    return [key for key, (_, _, level) in METRICS.items() if level == "token"]


def about(key: str) -> tuple[str, str]:
    """(space, formula) of a key; one of a later release is not known."""
    space, formula, level = METRICS.get(key, ("not known to this release", "", "token"))
    return (f"{space}, {level}" if level == "sequence" else space), formula


#: Said wherever such an interval is shown or judged (compare/trust.py decides).
NOT_TRUSTED = "interval not trusted"
WHY_NOT_TRUSTED = (
    "too few sequences for how much they differ in size, or some biased unlike all others; where "
    "the truth is known, such intervals miss it too often"
)

#: Below the table of what is known of the whole distribution.
DISTRIBUTION = (
    "Means over tokens, 95% intervals by bootstrap over sequences. `_lb`: over the tokens both "
    "sides gave and one bucket for the rest, a lower bound of the divergence over the whole "
    "vocabulary (nats; tv and flips: shares). Mass that float32 cannot tell from none counts as "
    "1e-6: where one side cut tokens that the other keeps, the divergence is infinite, and that "
    "constant sets its bound (js and tv stay what they are). `kept_mass`: the probability that "
    "top-p, top-k or min-p left to be drawn from."
)

#: What the first token at which two sides' likeliest differ is, by whether one of them drew the
#: tokens greedily; None: nothing says. Which replay stands for a free run: compare/forks.py.
FORKS = {
    True: "One side drew these tokens greedily: the first that is not the other's likeliest is "
    "where the other's own greedy run forks, as far as a replay has the arithmetic of a free run "
    "(a decode path has, but for who shares its batch; score and prefill are the nearest thing)",
    False: "Neither side drew these tokens greedily: it is the first token at which the likeliest "
    "differ along this text, and no fork of a free run",
    None: "How these tokens were drawn is not known: it is the first token at which the likeliest "
    "differ along this text, and no fork of a free run",
}
#: How their shares and intervals are made.
SURVIVAL = (
    "Kaplan-Meier over sequences, what ends before it differs is censored there; 95%, log-log, at "
    "each length by itself"
)

#: What is counted of two sides' routes, in the order of tables.
ROUTES = ("router_flip_rate", "token_flip_rate", "expert_miss_rate")
#: Below that table.
ROUTES_NOTE = (
    "The experts at the position before a token, whose output it is; sets, not orders. Shares and "
    "means (in nats) over tokens, 95% intervals by bootstrap over sequences. `router_flip_rate`: "
    "of (token, layer), sent to another set of experts; `token_flip_rate`: of tokens, in any "
    "layer; `expert_miss_rate`: of chosen experts, not chosen by the other side. Beyond chance: 1 "
    "for the same experts, 0 for sides that choose as often but independently. Agree: in every "
    "layer, at that position; earlier positions still reach the token through attention."
)

#: How rollouts leave their ids and come back to them, in the order of tables.
ROADS = {
    "text": "ids → text → ids",
    "template": "ids → messages → template → ids",
}
#: Why they come back as other ids, in the order of tables; docs/metrics.md says how it is decided.
CAUSES = {
    "bpe": "BPE is not unique: the same text, other tokens",
    "not_text": "bytes that are no text",
    "tool_whitespace": "tool call: white space",
    "tool_json": "tool call: JSON written anew",
    "reasoning": "reasoning stripped or trimmed",
    "dropped": "text after a tool call, dropped",
    "whitespace": "white space of content",
    "turn_end": "end of turn added",
    "prompt": "outside the sampled turns",
    "other": "other",
}
