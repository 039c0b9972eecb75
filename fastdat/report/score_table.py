"""Scores of runs, sorted into kinds. Two scores are of one kind only if they were measured in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastdat.report.runs import RunRecord, is_number

INCEPTION = "inception-v3-compat"
"""The extractor that publications mean by FID, KID and IS without further words."""

BETTER = {
    "fid": -1,
    "kid": -1,
    "is": +1,
    "precision": +1,
    "recall": +1,
    "modes": +1,
    "high_quality": +1,
    "kl": -1,
}
"""Whether a greater (+1) or a smaller (-1) score is better. The order is that of the tables."""

_NAMES = {
    "fid": "FID",
    "kid": "KID",
    "is": "IS",
    "precision": "Precision",
    "recall": "Recall",
    "modes": "Modes found",
    "high_quality": "High-quality share",
    "kl": "KL of the modes' shares",
}
_WITHOUT_EXTRACTOR = ("modes", "high_quality", "kl")  # scores of two-dimensional points
_FORMATS = {"fid": ".2f", "kid": ".4f", "is": ".2f", "modes": ".2f"}
# Keys of a metrics.jsonl record on which a score depends, beside the fields of Kind.
_PROTOCOL = (
    "extractor_sha256",
    "resize",
    "resolution",
    "kid_subsets",
    "kid_subset_size",
    "is_splits",
    "data",
    "data_sha256",
)


@dataclass(frozen=True)
class Kind:
    """How a score was measured. Only scores of one kind are compared with each other.

    Args:
        name: the score's key in metrics.jsonl, such as ``"fid"``.
        split: the split of the real images; None for IS, which uses no real images.
        extractor: the network that computed the features.
        weights: the generator's weights: ``"G"``, or ``"ema"`` for their moving average.
        fakes, reals: numbers of images; None if the record has none.
        protocol: key and value of everything else that the score depends on.
    """

    name: str
    split: str | None
    extractor: str
    weights: str
    fakes: int | None
    reals: int | None
    protocol: tuple[tuple[str, str], ...]

    @property
    def short(self) -> str:
        """``FID`` or ``KID [efficientnet-lite0]``: the plain name only where a publication would use it."""
        name = _NAMES.get(self.name, self.name)
        plain = self.extractor == INCEPTION and self.name in ("fid", "kid", "is")
        without = self.extractor == "none" and self.name in _WITHOUT_EXTRACTOR
        return name if plain or without else f"{name} [{self.extractor}]"

    @property
    def title(self) -> str:
        """The short name, the split, and the weights if they are not G's own."""
        parts = [self.short, self.split, f"weights of {self.weights}" if self.weights != "G" else None]
        return ", ".join(part for part in parts if part)

    @property
    def counts(self) -> str:
        """``50,000 fakes, 10,000 reals of cifar10 test at 32``."""
        known = dict(self.protocol)
        reals = f"reals of {known['data']} at {known.get('resolution', '?')}" if "data" in known else "reals"
        numbers = ((self.fakes, "fakes"), (self.reals, reals))
        return ", ".join(f"{count:,} {what}" for count, what in numbers if count is not None)

    @property
    def details(self) -> str:
        """The counts, and the first digits of the checksum of the extractor's weights."""
        sha = dict(self.protocol).get("extractor_sha256", "")
        return ", ".join(part for part in (self.counts, f"extractor {sha[:8]}" if sha else "") if part)

    @property
    def better(self) -> int:
        """+1 if greater is better, -1 if smaller is, 0 if that is unknown."""
        return BETTER.get(self.name, 0)

    def text(self, value: float) -> str:
        """``value`` with as many digits as in the paper."""
        return f"{value:{_FORMATS.get(self.name, '.3g')}}"


@dataclass(frozen=True)
class Series:
    """The scores of one kind and one run.

    Args:
        steps, values: of equal length, sorted by step.
        std: standard deviation of each value over subsets (KID) or splits (IS); None if not recorded.
    """

    steps: Sequence[int]
    values: Sequence[float]
    std: Sequence[float | None]

    def best(self, kind: Kind) -> int | None:
        """Index of the best value, the earliest of equals; None if it is unknown which direction is better."""
        if not kind.better:
            return None
        return max(range(len(self.steps)), key=lambda i: kind.better * self.values[i])

    def text(self, kind: Kind, i: int) -> str:
        """Value ``i`` as ``0.0133 ± 0.0004``, or without the deviation if there is none."""
        std = self.std[i]
        return kind.text(self.values[i]) + (f" ± {kind.text(std)}" if std is not None else "")


def score_series(run: RunRecord) -> dict[Kind, Series]:
    """All scores of a run. If a step was scored twice, the later record counts."""
    found: dict[Kind, dict[int, tuple[float, float | None]]] = {}
    for record in run.metrics:
        scores = record["scores"]
        for name, value in scores.items():
            if name.endswith("_std") or not is_number(value):
                continue
            std = scores.get(f"{name}_std")
            kind = _kind(name, record)
            found.setdefault(kind, {})[record["step"]] = (value, std if is_number(std) else None)
    return {
        kind: Series(list(at), [v for v, _ in at.values()], [s for _, s in at.values()])
        for kind, at in found.items()
    }


def sorted_kinds(all_series: Sequence[Mapping[Kind, Series]]) -> list[Kind]:
    """The kinds of all runs: Inception's scores first, FID before KID, train before test."""
    order = list(BETTER)

    def sort_key(kind: Kind) -> tuple[Any, ...]:
        first = order.index(kind.name) if kind.name in order else len(order)
        counts = tuple(-1 if n is None else -n for n in (kind.fakes, kind.reals))
        return (
            kind.extractor != INCEPTION,
            kind.extractor,
            first,
            kind.name,
            kind.split != "train",
            kind.split or "",
            kind.weights,
            *counts,
            kind.protocol,
        )

    return sorted({kind for series in all_series for kind in series}, key=sort_key)


def _kind(name: str, record: Mapping[str, Any]) -> Kind:
    uses_no_reals = name == "is"
    irrelevant = {"kid": ("is_splits",), "is": ("kid_subsets", "kid_subset_size", "data", "data_sha256")}.get(
        name, ("kid_subsets", "kid_subset_size", "is_splits")
    )
    protocol = tuple(
        (key, str(record[key])) for key in _PROTOCOL if key not in irrelevant and record.get(key) is not None
    )
    return Kind(
        name=name,
        split=None if uses_no_reals else str(record.get("split", "unknown split")),
        extractor=str(record.get("extractor", "unknown extractor")),
        weights=str(record.get("weights", "G")),
        fakes=_count(record.get("fake_count")),
        reals=None if uses_no_reals else _count(record.get("real_count")),
        protocol=protocol,
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
