"""Settings of an evaluation: which scores, by which extractor, from how many images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from fastdat.util.errors import ConfigError
from fastdat.util.settings import Distinct, NoneMeans, PositiveInt, Range, check_fields

Metric = Literal["fid", "kid", "is", "precision-recall", "modes"]
Split = Literal["train", "test"]
FEWEST = 4
"""Images on a side that all scores can be made of: precision and recall look at the third neighbour."""
METRICS: tuple[str, ...] = get_args(Metric)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Scores of a generator against real images.

    Args:
        every: G steps between evaluations while training; None: no scores while training, only by ``fastdat eval``.
        metrics: names from :data:`METRICS`. The first one, on the first split, decides which checkpoint is the best.
            ``"modes"`` is for the 2-D mixtures and cannot be combined with others.
        splits: real images to compare with.
        extractor: ``"inception-v3-compat"`` (the one that FID, KID and IS are defined with), ``"efficientnet-lite0"``,
            a name given to :func:`fastdat.metrics.register_extractor`, or ``"package.module:factory"``, which is
            imported and therefore never taken from a file of settings or a run folder.
        weights: file of the extractor's weights, for machines without a network; None: the extractor finds its own.
        fakes: number of generated images.
        reals: number of real images, chosen at random from a split that has more; a smaller split is used whole. The
            paper's protocol is 50,000 fakes against up to 50,000 reals.
        seed: of the noise and of every random choice.
        batch_size: images per call of the generator and of the extractor; changes no score beyond rounding.
        kid_subsets: number of subsets that KID is averaged over.
        kid_subset_size: images per subset; None: all images divided among the subsets, at most 5,000 each.
        is_splits: number of parts that IS is averaged over.

    Raises:
        ConfigError: a value of the wrong type or outside its range.
    """

    every: Annotated[PositiveInt | None, NoneMeans("no scores while training")] = None
    metrics: Annotated[tuple[Metric, ...], Distinct()] = ("fid", "kid", "is")
    splits: Annotated[tuple[Split, ...], Distinct()] = ("train", "test")
    extractor: str = "inception-v3-compat"
    weights: str | None = None
    fakes: Annotated[int, Range(at_least=FEWEST)] = 50_000
    reals: Annotated[int, Range(at_least=FEWEST)] = 50_000
    seed: Annotated[int, Range(at_least=0, below=2**32)] = 0  # NumPy's limit
    batch_size: PositiveInt = 128
    kid_subsets: PositiveInt = 10
    kid_subset_size: Annotated[int, Range(at_least=2)] | None = None
    is_splits: PositiveInt = 10

    def __post_init__(self) -> None:
        check_fields(self)
        if "modes" in self.metrics and len(self.metrics) > 1:
            raise ConfigError(
                f"modes is for the 2-D mixtures and cannot be combined with others; got metrics={list(self.metrics)!r}"
            )

    @property
    def summary(self) -> str:
        """What is scored, by what and from how much, in one line."""
        by = "" if self.metrics == ("modes",) else f" by {self.extractor}"
        reals = (
            ""
            if self.metrics == ("modes",)
            else f" against up to {self.reals:,} reals of {' and '.join(self.splits)}"
        )
        return f"{', '.join(self.metrics)}{by}: {self.fakes:,} fakes{reals}, seed {self.seed}"
