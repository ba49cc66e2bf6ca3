"""What each metric key is: its space and its formula, for the table of all metrics."""

from __future__ import annotations

#: key -> (space, formula). d = lp_train - lp_infer in nats, r = exp(d), D = a sequence's sum of d.
METRICS: dict[str, tuple[str, str]] = {
    "k1": ("log", "mean(-d)"),
    "k2": ("log", "mean(d²)/2"),
    "k3": ("log", "mean(expm1(d) - d)"),
    "k3_rev": ("log", "mean(expm1(-d) + d); not the reverse KL on infer's tokens"),
    "abs_logprob_diff_mean": ("log", "mean |d|"),
    "abs_logprob_diff_std": ("log", "std of |d|"),
    "abs_logprob_diff_p50": ("log", "median of |d|"),
    "abs_logprob_diff_p90": ("log", "90th percentile of |d|"),
    "abs_logprob_diff_p99": ("log", "99th percentile of |d|"),
    "abs_logprob_diff_p999": ("log", "99.9th percentile of |d|"),
    "abs_logprob_diff_max": ("log", "largest |d|"),
    "logprob_diff_mean": ("log", "mean d: the bias"),
    "rms_logprob_diff": ("log", "sqrt(mean d²)"),
    "prob_diff_mean": ("probability", "mean |p_train - p_infer|"),
    "prob_diff_max": ("probability", "largest |p_train - p_infer|"),
    "prob_diff_std": ("probability", "std of |p_train - p_infer|"),
    "prob_pearson": ("probability", "correlation of p_train and p_infer"),
    "mult_prob_error": ("ratio", "mean(exp|d|)"),
    "ratio_mean": ("ratio", "mean r; hides everything on its own"),
    "ratio_min": ("ratio", "smallest r"),
    "ratio_max": ("ratio", "largest r"),
    "ratio_p01": ("ratio", "1st percentile of r"),
    "ratio_p99": ("ratio", "99th percentile of r"),
    "chi2_token": ("ratio", "mean(r²) - 1"),
    "ess_token": ("ratio", "(Σr)²/(nΣr²)"),
    "exact_fraction": ("share of tokens", "d == 0"),
    "confident_disagreement": ("share of tokens", "p_infer >= 0.5 and d < -2"),
    "top1_flip_rate": ("share of tokens", "the most likely token differs"),
    "seq_log_ratio_mean": ("log, sequence", "mean D"),
    "seq_log_ratio_std": ("log, sequence", "std of D"),
    "seq_log_ratio_p05": ("log, sequence", "5th percentile of D"),
    "seq_log_ratio_p50": ("log, sequence", "median D"),
    "seq_log_ratio_p95": ("log, sequence", "95th percentile of D"),
    "seq_log_ratio_slope_per_1k": ("log, sequence", "slope of D on length, per 1 000 tokens"),
    "seq_k1": ("log, sequence", "mean(-D)"),
    "seq_chi2": ("ratio, sequence", "mean(exp(D)²) - 1"),
    "ess_seq": ("ratio, sequence", "(ΣR)²/(nΣR²), R = exp D"),
    "seq_geo_ratio": ("ratio, sequence", "mean over sequences of exp(mean d)"),
    "seq_max_prob_diff_mean": ("probability, sequence", "mean of each sequence's largest |Δp|"),
    "seq_prob_diff_gt_0.5": ("count of sequences", "largest |Δp| above 0.5"),
    "log_ppl_diff": ("log, sequence", "mean over sequences of mean(-d)"),
    "ppl_ratio": ("ratio, sequence", "mean over sequences of exp(mean(-d))"),
    "seq_clamped_count": ("count of sequences", "|D| > 20, where verl clamps"),
    "ess_half_length": ("tokens", "ln 2 / (2 k3): half of the sequence-level ESS is gone"),
    "clamp_length": ("tokens", "20 / k3: the mean of D reaches verl's clamp"),
}


def about(key: str) -> tuple[str, str]:
    """(space, formula) of a key; a key of a later release is shown with what its name says."""
    if key.startswith("extreme_fraction_"):
        return "share of tokens", f"max(r, 1/r) > {key.removeprefix('extreme_fraction_')}"
    return METRICS.get(key, ("not known to this release", ""))


#: Below the table of what is known of the whole distribution.
DISTRIBUTION = (
    "Means over tokens, 95% intervals by bootstrap over sequences. `_lb`: over the tokens both "
    "sides gave and one bucket for the rest, a lower bound of the divergence over the whole "
    "vocabulary (nats; tv and flips: shares). `kept_mass`: the probability that top-p, top-k or "
    "min-p left to be drawn from."
)
