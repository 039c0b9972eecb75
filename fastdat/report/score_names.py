"""The short name of each kind of score, and in a footnote how it was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fastdat.report.runs import without_beginning
from fastdat.report.score_table import INCEPTION, WITHOUT_EXTRACTOR, Kind, Series, sorted_kinds

_DIRECTIONS = {1: "More is better", -1: "Less is better"}
_OF_WEIGHTS = {"G": "of G", "ema": "of the running average of G"}


@dataclass(frozen=True)
class ScoreName:
    """How the page names one kind of score.

    Args:
        number: of the footnote.
        label: short, and different for each kind if that is possible in a few words: ``KID test``.
        source: the extractor, where a publication would expect another one; stands in small print beside the label.
        provenance: the text of the footnote.
        direction: ``less is better``; empty if that is unknown.
        caveat: why the score is not what a publication means by its name; empty if it is.
    """

    number: int
    label: str
    source: str
    provenance: str
    direction: str
    caveat: str

    @property
    def in_sentence(self) -> str:
        """The label within a sentence: ``FID test``, but ``modes found``."""
        return self.label if self.label[:2].isupper() else self.label[:1].lower() + self.label[1:]


def score_names(all_series: Sequence[Mapping[Kind, Series]]) -> dict[Kind, ScoreName]:
    """The names of all kinds of scores on the page, in the order of the tables."""
    kinds = sorted_kinds(all_series)
    labels = [", ".join((kind.label, *_set_apart(kind, kinds))) for kind in kinds]
    return {
        kind: ScoreName(
            number=number,
            label=label,
            source="" if _as_published(kind) or kind.extractor in label else kind.extractor,
            provenance=_provenance(kind),
            direction=_DIRECTIONS.get(kind.better, "").lower(),
            caveat=_caveat(kind),
        )
        for number, (kind, label) in enumerate(zip(kinds, labels, strict=True), 1)
    }


def _as_published(kind: Kind) -> bool:
    """Whether a publication would use the plain name for this score."""
    plain = kind.extractor == INCEPTION and kind.name in ("fid", "kid", "is")
    return plain or (kind.extractor == "none" and kind.name in WITHOUT_EXTRACTOR)


def _caveat(kind: Kind) -> str:
    by_another = kind.name in ("fid", "kid", "is") and not _as_published(kind)
    return f"by {kind.extractor}, so not comparable with published {kind.short}" if by_another else ""


def _set_apart(kind: Kind, kinds: Sequence[Kind]) -> list[str]:
    """The few words that set a kind apart from others of the same label, as far as a few words can."""
    namesakes = [other for other in kinds if other.label == kind.label]
    aspects: tuple[Callable[[Kind], str], ...] = (
        lambda k: k.extractor,
        lambda k: _OF_WEIGHTS.get(k.weights, f"of {k.weights}").replace("running ", ""),
        lambda k: f"{k.fakes:,} fakes" if k.fakes is not None else "",
        lambda k: f"{k.reals:,} reals" if k.reals is not None else "",
        _data,
        _images,
    )
    apart = []
    for say in aspects:
        if len({say(other) for other in namesakes}) > 1:
            apart.append(say(kind))
            namesakes = [other for other in namesakes if say(other) == say(kind)]
    return [words for words in apart if words]


def _data(kind: Kind) -> str:
    """The images that a score was measured with, without the beginning of a path."""
    name, space, path = dict(kind.protocol).get("data", "").partition(" ")
    return f"{name}{space}{without_beginning(path)}"


def _images(kind: Kind) -> str:
    """Which images these were, where the same name stands for others."""
    known = dict(kind.protocol)
    return f"images {known['data_sha256'][:8]}" if "data_sha256" in known else ""


def _provenance(kind: Kind) -> str:
    known = dict(kind.protocol)
    fakes = "samples" if kind.fakes is None else f"{kind.fakes:,} samples"
    parts = [f"{fakes} {_OF_WEIGHTS.get(kind.weights, f'of {kind.weights}')}"]
    if kind.split is not None:
        count = "" if kind.reals is None else f"{kind.reals:,} "
        size = f" at {known['resolution']} pixels" if "resolution" in known else ""
        images = f" ({_images(kind)})" if _images(kind) else ""
        parts.append(f"against {count}reals of {_data(kind) or kind.split}{size}{images}")
    sentences = [" ".join(parts)]
    if kind.extractor != "none":
        sha = f" (weights {known['extractor_sha256'][:8]})" if "extractor_sha256" in known else ""
        resize = f", resize {known['resize']}" if "resize" in known else ""
        sentences.append(f"Features by {kind.extractor}{sha}{resize}")
        if _caveat(kind):
            sentences.append(f"Published {kind.short} is by Inception and not comparable")
    if (
        kind.name == "kid"
        and {"kid_subsets", "kid_subset_size"} <= known.keys()
        and known["kid_subsets"] != "1"
    ):
        sentences.append(
            f"± is the standard error of the mean over {known['kid_subsets']} subsets of "
            f"{known['kid_subset_size']} images"
        )
    if kind.name == "is" and "is_splits" in known:
        sentences.append(f"± is the standard deviation over {known['is_splits']} splits of the samples")
    direction = _DIRECTIONS.get(kind.better)
    return ". ".join([*sentences, *([direction] if direction else [])]) + "."
