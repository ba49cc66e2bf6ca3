"""What our JSON files look like: checked as they are read, since anybody may have edited them.

A hash says that a file is the one that was sealed; it does not say who sealed it. Keys that are not
named here are let through: an older or a newer release may write them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    RootModel,
    ValidationError,
    model_validator,
)

from mismatch.errors import MismatchError


def shaped(path: Path, found: Any, shape: type[BaseModel]) -> Any:
    """What was read of a file, as it stands, if it has that shape."""
    try:
        shape.model_validate(found)
    except ValidationError as reason:
        first = reason.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        said = f"{place}: {first['msg']}"
        raise MismatchError("artifact-changed", file=path, reason=said) from None
    return found


class Shape(BaseModel):
    """A number is not text, a list is no object, and true is not 1."""

    model_config = ConfigDict(extra="ignore", strict=True)


class Manifest(Shape):
    """MANIFEST.json of every artifact; traces: what a comparison was made from."""

    kind: str
    files: dict[str, str]
    corpus: str = ""
    traces: dict[str, str] = {}


class _Model(Shape):
    digest: str | None = None


class _Facts(Shape):
    versions: dict[str, str] | None = None
    scored_as: dict[str, FiniteFloat] | None = None
    code: dict[str, Any] | None = None


class Provenance(Shape):
    """provenance.json of a trace."""

    condition: str
    corpus: str
    model: _Model = _Model()
    facts: _Facts


class Named(Provenance):
    """The same of a trace that lies anywhere: what it is called is known from here alone."""

    trace: str
    path: str
    capture: str


class _SampledBy(Shape):
    condition: str
    model: str
    temperature: FiniteFloat
    support: str
    greedy: bool | None = None


class Texts(RootModel[dict[str, str]]):
    """texts.json beside a corpus: token id -> its text."""

    model_config = ConfigDict(strict=True)


class CorpusNote(Shape):
    """corpus.json of a corpus."""

    sampled_by: _SampledBy | None = None


class Failure(Shape):
    """error.json of a capture that failed."""

    condition: str
    capture: str
    boundary: str
    type: str
    message: str


# ---------------------------------------------------------------- run.json


class _PairSpec(Shape):
    id: str
    kind: Literal["train-infer", "infer-infer", "train-train"]
    path: str
    left: str
    right: str
    floors: dict[str, dict[Literal["train", "infer"], list[str]]]


class _AttributionSpec(Shape):
    id: str
    knobs: list[str]
    left: str
    right: str
    corners: dict[str, str]
    folded: list[str] = []

    @model_validator(mode="after")
    def _has_ends(self) -> Self:
        bits = {"0" * len(self.knobs), "1" * len(self.knobs)}
        assert bits <= self.corners.keys(), "a corner is missing"
        assert all(len(b) == len(self.knobs) and set(b) <= {"0", "1"} for b in self.corners), "bits"
        return self


class Run(Shape):
    """run.json of a run folder."""

    request: dict[str, Any]
    pairs: list[_PairSpec]
    attributions: list[_AttributionSpec] = []


# ---------------------------------------------------------------- summary.json


class _Estimate(Shape):
    value: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None


_Metrics = dict[str, _Estimate | None]


class _Bin(Shape):
    bin: str
    tokens: NonNegativeInt
    metrics: _Metrics


class _Part(Shape):
    """What a correction touches and leaves, of all sequences or of those of one length."""

    affected: _Estimate
    ess: _Estimate


class _LengthPart(_Part):
    bin: str
    tokens: NonNegativeInt
    sequences: NonNegativeInt


class _Correction(_Part):
    name: str
    level: Literal["token", "sequence"]
    rule: str
    by_length: list[_LengthPart]


class _RoutedLayer(Shape):
    layer: NonNegativeInt
    router_flip_rate: _Estimate
    beyond_chance: FiniteFloat | None


class _RoutedTokens(Shape):
    routes: Literal["agree", "differ"]
    tokens: NonNegativeInt
    metrics: _Metrics


class _Routes(Shape):
    """Which experts both sides sent the same tokens to."""

    tokens: NonNegativeInt
    layers: NonNegativeInt
    experts_per_token: NonNegativeInt
    metrics: _Metrics
    by_layer: list[_RoutedLayer]
    by_agreement: list[_RoutedTokens]


class _Prefix(Shape):
    length: NonNegativeInt
    sequences: NonNegativeInt
    tokens: NonNegativeInt
    ess: _Estimate
    predicted: FiniteFloat | None


class _Agreement(Shape):
    length: PositiveInt
    sequences: NonNegativeInt
    share: _Estimate


class _Forked(Shape):
    greedy: bool | None
    sequences: NonNegativeInt
    forked: NonNegativeInt
    first: NonNegativeInt | None
    tied: NonNegativeInt
    forked_or_tied: NonNegativeInt
    median: _Estimate
    agreement: list[_Agreement]

    @model_validator(mode="after")
    def _has_a_curve(self) -> Self:
        assert self.agreement or not self.sequences, "agreement is empty"
        return self


class _Forks(_Forked):
    floor: dict[str, dict[Literal["train", "infer"], _Forked]] = {}


class _Check(Shape):
    rung: str
    verdict: str
    evidence: str = ""
    todo: str = ""


class Pair(Shape):
    """One element of pairs[], and comparison.json."""

    id: str
    kind: Literal["train-infer", "infer-infer", "train-train"]
    path: str
    train: str = ""
    infer: str = ""
    left: str = ""
    right: str = ""
    tokens: NonNegativeInt
    sequences: NonNegativeInt
    nan_tokens: NonNegativeInt
    inf_tokens: NonNegativeInt
    sampled_by: str
    metrics: _Metrics
    floor: dict[str, dict[Literal["train", "infer"], _Metrics]] | None
    excess: _Metrics | None
    breakdowns: dict[str, list[_Bin]]
    ess_by_length: list[_Prefix] = []
    corrections: list[_Correction] = []
    distribution: _Metrics = {}
    forks: _Forks | None = None
    emulated: dict[str, str] = {}
    routes: _Routes | None = None
    replayed: dict[str, str] = {}
    preflight: list[_Check]

    @model_validator(mode="after")
    def _has_sides(self) -> Self:
        across = self.kind == "train-infer"
        assert all((self.train, self.infer) if across else (self.left, self.right)), "a side lacks"
        return self


class _Knob(Shape):
    knob: str
    share: _Estimate
    alone_share: _Estimate
    interaction: _Estimate
    alone_k3: _Estimate
    resolved_from_next: bool | None


class Attribution(Shape):
    """One element of attributions[], and attribution.json; without corners it has no numbers."""

    id: str
    left: str
    right: str
    missing: list[str]
    unlike: list[str] = []
    folded: list[str] = []
    tokens: NonNegativeInt
    sequences: NonNegativeInt
    dropped: NonNegativeInt = 0
    method: str = ""
    gap: dict[str, _Estimate] = {}
    knobs: list[_Knob]

    @model_validator(mode="after")
    def _has_gap(self) -> Self:
        assert not self.knobs or (self.method and "k3" in self.gap), "its gap lacks"
        return self


class Summary(Shape):
    """summary.json of a run folder."""

    pairs: list[Pair]
    attributions: list[Attribution] = []
