"""Scores of runs, sorted into kinds. Two scores are of one kind only if they were measured in the same way."""

from __future__ import annotations

import math
import re
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
WITHOUT_EXTRACTOR = ("modes", "high_quality", "kl")
"""Scores of two-dimensional points, which need no features."""

_DECIMALS = {
    "fid": 2, "kid": 4, "is": 2,  # as in the paper
    "precision": 3, "recall": 3, "modes": 2, "high_quality": 3, "kl": 3,
}  # fmt: skip
_LARGE_KID = (
    0.1  # Inception's KID is below it, other extractors' may be far above: two decimals are then enough
)
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
        """``FID``."""
        return _NAMES.get(self.name, self.name)

    @property
    def label(self) -> str:
        """``FID test``: the short name and the split."""
        needs_split = self.split is not None and self.name not in WITHOUT_EXTRACTOR
        return f"{self.short} {self.split}" if needs_split else self.short

    @property
    def better(self) -> int:
        """+1 if greater is better, -1 if smaller is, 0 if that is unknown."""
        return BETTER.get(self.name, 0)

    def decimals(self, value: float) -> int | None:
        """As many decimals as in the paper; None for scores with any range, such as a user's own."""
        if self.name == "kid" and abs(value) >= _LARGE_KID:
            return 2
        return _DECIMALS.get(self.name)

    def text(self, value: float, error: float | None = None) -> str:
        """``0.0133``, or ``0.0133 ± 0.0004``."""
        decimals = self.decimals(value)
        form = ".3g" if decimals is None else f",.{decimals}f"
        return f"{value:{form}}" + ("" if error is None else f" ± {error:{form}}")


@dataclass(frozen=True)
class Series:
    """The scores of one kind and one run.

    Args:
        steps, values: of equal length, sorted by step.
        errors: of KID the standard error, of IS the standard deviation over its splits; None if not recorded.
    """

    steps: Sequence[int]
    values: Sequence[float]
    errors: Sequence[float | None]

    def best(self, kind: Kind) -> int | None:
        """Index of the best value, the earliest of equals; None if it is unknown which direction is better."""
        if not kind.better:
            return None
        return max(range(len(self.steps)), key=lambda i: kind.better * self.values[i])

    def text(self, kind: Kind, i: int) -> str:
        """Value ``i`` as ``0.0133 ± 0.0004``, or without the error if there is none."""
        return kind.text(self.values[i], self.errors[i])


def score_series(run: RunRecord) -> dict[Kind, Series]:
    """All scores of a run. If a step was scored twice, the later record counts."""
    found: dict[Kind, dict[int, tuple[float, float | None]]] = {}
    for record in run.metrics:
        scores = record["scores"]
        for name, value in scores.items():
            if name.endswith("_std") or not is_number(value):
                continue
            std = scores.get(f"{name}_std")
            kind = _kind(name, record, trained_on=_images_of(run, record))
            error = _error(kind, std) if is_number(std) and std >= 0 else None
            found.setdefault(kind, {})[record["step"]] = (value, error)
    return {
        kind: Series(list(at), [v for v, _ in at.values()], [e for _, e in at.values()])
        for kind, at in found.items()
    }


def _images_of(run: RunRecord, record: Mapping[str, Any]) -> str | None:
    """What G was trained on, which IS depends on although it needs no reals; None if that is unknown."""
    name = run.config.get("dataset")
    if name is None:  # nets of one's own
        name, split = record.get("data"), str(record.get("split"))
        return None if name is None else str(name).removesuffix(split).strip()
    return f"{name} {run.config.get('data')}" if name == "folder" else str(name)


def _error(kind: Kind, std: float) -> float | None:
    """What the page shows after ±: the recorded deviation, but for KID its standard error.

    KID is the mean over ``k`` subsets, each of which is drawn from all images. With ``n`` times as many images as in a
    subset, two subsets share a part of ``1 / n``. If V is the variance of a subset, the mean has the variance
    ``V / n + (V - V / n) / k``. The recorded deviation is that of the ``k`` values (divided by ``k``), so that
    ``std ** 2 * k / (k - 1)`` estimates ``V - V / n``, and the standard error is
    ``std * sqrt(k / (k - 1)) * sqrt(1 / k + 1 / (n - 1))``. It is unknown where a subset holds all images, or where
    there is a single one.
    """
    if kind.name != "kid":
        return std
    known = dict(kind.protocol)
    texts = [known.get(key, "") for key in ("kid_subsets", "kid_subset_size")]
    if (
        kind.fakes is None
        or kind.reals is None
        or not all(re.fullmatch("[1-9][0-9]{0,8}", text) for text in texts)
    ):
        return None
    subsets, size = map(int, texts)
    times = min(kind.fakes, kind.reals) / size
    if subsets == 1 or times <= 1:
        return None
    return std * math.sqrt(subsets / (subsets - 1) * (1 / subsets + 1 / (times - 1)))


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


def _kind(name: str, record: Mapping[str, Any], trained_on: str | None) -> Kind:
    uses_no_reals = name == "is"
    irrelevant = {"kid": ("is_splits",), "is": ("kid_subsets", "kid_subset_size", "data", "data_sha256")}.get(
        name, ("kid_subsets", "kid_subset_size", "is_splits")
    )
    protocol = tuple(
        (key, str(record[key])) for key in _PROTOCOL if key not in irrelevant and record.get(key) is not None
    )
    if uses_no_reals and trained_on is not None:
        protocol += (("data", trained_on),)
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
