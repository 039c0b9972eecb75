"""Scores of runs as series, each with all it depends on, under a name that promises no more than it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastdat.report.runs import RunRecord, is_number

INCEPTION = "inception-v3-compat"
"""The one extractor whose scores are what FID, KID and IS mean in print."""

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
"""Whether more (+1) or less (-1) is better."""

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
_OF_POINTS = ("modes", "high_quality", "kl")
_FORMS = {"fid": ".2f", "kid": ".4f", "is": ".2f", "modes": ".2f"}
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
    """What sort of number a score is; only scores of one kind are compared.

    Args:
        name: its key, ``"fid"``.
        split: which reals it compares with; None for IS, which compares with none.
        extractor: whose features.
        weights: of which generator: ``"G"`` or its average, ``"ema"``.
        fakes, reals: how many images; None where the record does not say, or has none.
        protocol: what else it depends on, key and value.
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
        """``FID``, ``KID [efficientnet-lite0]``: plain only for what the plain name means."""
        name = _NAMES.get(self.name, self.name)
        plain = self.extractor == INCEPTION and self.name in ("fid", "kid", "is")
        without = self.extractor == "none" and self.name in _OF_POINTS
        return name if plain or without else f"{name} [{self.extractor}]"

    @property
    def title(self) -> str:
        """The short name and what it was measured against."""
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
        """Counts, and the extractor's weights."""
        sha = dict(self.protocol).get("extractor_sha256", "")
        return ", ".join(part for part in (self.counts, f"extractor {sha[:8]}" if sha else "") if part)

    @property
    def better(self) -> int:
        """+1 where more is better, -1 where less is, 0 where nobody knows."""
        return BETTER.get(self.name, 0)

    def form(self, value: float) -> str:
        """``value`` with as many digits as the paper gives."""
        return f"{value:{_FORMS.get(self.name, '.3g')}}"


@dataclass(frozen=True)
class Series:
    """One kind of score of one run over its steps. ``std`` is over subsets (KID) or splits (IS), where recorded."""

    steps: Sequence[int]
    values: Sequence[float]
    std: Sequence[float | None]

    def best(self, kind: Kind) -> int | None:
        """The index of the best value, the earliest where several are; None where nobody knows what is better."""
        if not kind.better:
            return None
        return max(range(len(self.steps)), key=lambda i: kind.better * self.values[i])

    def form(self, kind: Kind, i: int) -> str:
        """``0.0133 ± 0.0004``."""
        std = self.std[i]
        return kind.form(self.values[i]) + (f" ± {kind.form(std)}" if std is not None else "")


def series_of(run: RunRecord) -> dict[Kind, Series]:
    """All scores of a run; a step that was scored twice counts with the later record."""
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


def kinds_of(all_series: Sequence[Mapping[Kind, Series]]) -> list[Kind]:
    """Every kind that a run has, FID first, train before test."""
    order = list(BETTER)

    def place(kind: Kind) -> tuple[Any, ...]:
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

    return sorted({kind for series in all_series for kind in series}, key=place)


def _kind(name: str, record: Mapping[str, Any]) -> Kind:
    of_fakes_only = name == "is"
    skipped = {"kid": ("is_splits",), "is": ("kid_subsets", "kid_subset_size", "data", "data_sha256")}.get(
        name, ("kid_subsets", "kid_subset_size", "is_splits")
    )
    protocol = tuple(
        (key, str(record[key])) for key in _PROTOCOL if key not in skipped and record.get(key) is not None
    )
    return Kind(
        name=name,
        split=None if of_fakes_only else str(record.get("split", "unknown split")),
        extractor=str(record.get("extractor", "unknown extractor")),
        weights=str(record.get("weights", "G")),
        fakes=_count(record.get("fake_count")),
        reals=None if of_fakes_only else _count(record.get("real_count")),
        protocol=protocol,
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
