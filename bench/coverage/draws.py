"""Tokens of known truth: d = mean + size (√rho · sequence effect + √(1 - rho) · token noise).

Both parts have mean 0 and variance 1, so that rho is the correlation of two tokens of a sequence.
Or a sequence has no bias but a size of its own: d = mean + size · scale of the sequence · noise.
The truth of every metric is an integral over two independent parts, taken on a grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from mismatch.compare.metrics import Aligned

TAILS = ("normal", "t5", "lognormal")
LOGNORMAL_SCALE = 0.6
#: exp(d) of an uncut t5 or lognormal has no mean, so k3 would be infinite. Both are cut where a
#: normal of the same probability stands at 6 standard deviations: 1e-9 on each side.
CUT = 6.0
#: Scored tokens of a sequence, log-uniform.
SHORTEST, LONGEST = 20, 250
#: Nats: root mean square and mean of the gap's d; rms of a floor's d, whose mean is 0.
GAP_RMS, GAP_MEAN, FLOOR_RMS = 0.03, -0.01, 0.02


@dataclass(frozen=True, slots=True)
class Setting:
    """rho: correlation of d inside a sequence. heavy: the sequence effect has the tail too (else it
    is normal, and the tail is that of the token noise). spread: standard deviation of the log of a
    sequence's scale, in place of an effect. sparse: the share of sequences that a floor is not 0
    in, where that is not all of them; floor_rms: nats, over all tokens."""

    rho: float
    heavy: bool = False
    spread: float = 0.0
    sparse: float = 1.0
    floor_rms: float = FLOOR_RMS

    def effect(self, tail: str) -> str:
        return tail if self.heavy else "normal"


SETTINGS = {
    "weak": Setting(0.02),
    "strong": Setting(0.25),
    "sizes": Setting(0.0, spread=0.3),
    "heavy sequences": Setting(0.25, heavy=True),
    "sparse floors": Setting(0.02, sparse=0.1, floor_rms=0.003),
}


def standard(tail: str, z: np.ndarray) -> np.ndarray:
    """Normal scores z -> the tail's values at the same probabilities, mean 0 and variance 1."""
    z = np.clip(z, -CUT, CUT)
    if tail == "t5":
        return special.stdtrit(5.0, special.ndtr(z)) / math.sqrt(5 / 3)
    return _lognormal(z) if tail == "lognormal" else z


def _lognormal(z: np.ndarray) -> np.ndarray:
    mean = math.exp(LOGNORMAL_SCALE**2 / 2)
    return (np.exp(LOGNORMAL_SCALE * z) - mean) / (mean * math.sqrt(math.expm1(LOGNORMAL_SCALE**2)))


def draw(tail: str, rng: np.random.Generator, n: int) -> np.ndarray:
    """(n,) values distributed as `standard` of a standard normal."""
    if tail != "t5":
        return standard(tail, rng.standard_normal(n))
    low, high = standard(tail, np.array([-CUT, CUT]))
    return np.clip(rng.standard_t(5, n) / math.sqrt(5 / 3), low, high)


def gap_and_floors(
    tail: str, setting: Setting, sequences: int, rng: np.random.Generator
) -> tuple[Aligned, dict[str, dict[str, list[Aligned]]]]:
    """A gap, and batch floors of both sides as independent noise on the same tokens."""
    logs = rng.uniform(math.log(SHORTEST), math.log(LONGEST + 1), sequences)
    lengths = np.exp(logs).astype(int)
    gap = _aligned(GAP_MEAN, GAP_RMS, tail, setting, lengths, rng)
    floors = [_floor(tail, setting, lengths, rng) for _ in range(2)]
    return gap, {"batch": {"train": [floors[0]], "infer": [floors[1]]}}


def _floor(tail: str, setting: Setting, lengths: np.ndarray, rng: np.random.Generator) -> Aligned:
    """Of mean 0; where it is sparse, most sequences are the same to the bit."""
    found = _aligned(0.0, _rms_inside(setting), tail, setting, lengths, rng)
    if setting.sparse == 1:
        return found
    moved = np.repeat(rng.random(len(lengths)) < setting.sparse, lengths)
    return replace(found, lp_train=np.where(moved, found.lp_train, found.lp_infer))


def _rms_inside(setting: Setting) -> float:
    """Of the sequences that a floor is not 0 in."""
    return setting.floor_rms / math.sqrt(setting.sparse)


def _aligned(
    mean: float,
    rms: float,
    tail: str,
    setting: Setting,
    lengths: np.ndarray,
    rng: np.random.Generator,
) -> Aligned:
    effect = np.repeat(draw(setting.effect(tail), rng, len(lengths)), lengths)
    noise = draw(tail, rng, len(effect))
    d = _d(mean, rms, setting, effect, noise)
    infer = -rng.exponential(0.7, len(d))
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    return Aligned(
        sequence,
        np.arange(len(d)),
        (infer + d).astype(np.float32),
        infer.astype(np.float32),
    )


def _d(
    mean: float, rms: float, setting: Setting, effect: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    size, rho = math.sqrt(rms**2 - mean**2), setting.rho
    if setting.spread:  # a scale of mean square 1
        return mean + size * np.exp(setting.spread * effect - setting.spread**2) * noise
    return mean + size * (math.sqrt(rho) * effect + math.sqrt(1 - rho) * noise)


def truth(tail: str, setting: Setting, points: int = 3001) -> dict[str, float]:
    """What the metrics estimate. The trapezoid rule over normal scores of both parts converges
    exponentially but at the kink of |d|; twice the points change no value by 3e-6 of itself."""
    gap = _moments(GAP_MEAN, GAP_RMS, tail, setting, points)
    floor = _moments(0.0, _rms_inside(setting), tail, setting, points)
    return gap | {f"excess.{key}": gap[key] - setting.sparse * floor[key] for key in ("k2", "k3")}


def _moments(mean: float, rms: float, tail: str, setting: Setting, points: int) -> dict[str, float]:
    z = np.linspace(-9, 9, points)
    weight = np.exp(-(z**2) / 2)
    weight /= weight.sum()
    effect, noise = standard(setting.effect(tail), z)[:, None], standard(tail, z)[None]
    d = _d(mean, rms, setting, effect, noise)
    columns = {
        "k1": -d,
        "k2": d**2 / 2,
        "k3": np.expm1(d) - d,
        "abs_logprob_diff_mean": np.abs(d),
    }
    return {key: float(weight @ column @ weight) for key, column in columns.items()}
