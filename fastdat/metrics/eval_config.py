"""Settings of an evaluation: which scores, by which extractor, from how many images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from fastdat.util import settings
from fastdat.util.errors import ConfigError

Metric = Literal["fid", "kid", "is", "precision-recall", "modes"]
Split = Literal["train", "test"]
METRICS: tuple[str, ...] = get_args(Metric)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Scores of a generator against real images.

    Args:
        every: G steps between evaluations while training; None is none but what ``fastdat eval`` makes.
        metrics: which, of :data:`METRICS`; the first one, on the first split, tells which checkpoint is the best.
            ``"modes"`` is for the 2-D mixtures and stands alone.
        splits: real images to compare with.
        extractor: ``"inception-v3-compat"`` (what FID, KID and IS mean), ``"efficientnet-lite0"``, a name given to
            :func:`fastdat.metrics.register_extractor`, or ``"package.module:factory"``.
        weights: the extractor's weights file, for machines without a network; None is the extractor's own.
        fakes: generated images.
        reals: real images, chosen at random where a split has more; fewer where it has fewer. The paper's protocol is
            50,000 fakes against up to 50,000 reals.
        seed: of the noise and of every random choice.
        batch_size: images the generator and the extractor see at a time; changes no score beyond rounding.
        kid_subsets: subsets KID is averaged over.
        kid_subset_size: images of each; None is all images spread over the subsets, at most 5,000.
        is_splits: parts IS is averaged over.

    Raises:
        ConfigError: a value of another type or outside its range.
    """

    every: int | None = None
    metrics: tuple[Metric, ...] = ("fid", "kid", "is")
    splits: tuple[Split, ...] = ("train", "test")
    extractor: str = "inception-v3-compat"
    weights: str | None = None
    fakes: int = 50_000
    reals: int = 50_000
    seed: int = 0
    batch_size: int = 128
    kid_subsets: int = 10
    kid_subset_size: int | None = None
    is_splits: int = 10

    def __post_init__(self) -> None:
        least = {
            "every": 1,
            "fakes": 4,
            "reals": 4,
            "seed": 0,
            "batch_size": 1,
            "kid_subsets": 1,
            "is_splits": 1,
        }
        settings.check_fields(self, least | {"kid_subset_size": 2})
        if self.seed >= 1 << 32:  # NumPy's limit, which torch-fidelity would meet after all the work
            raise ConfigError(f"seed must be below 2**32, got {self.seed}")
        for name in ("metrics", "splits"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ConfigError(f"{name} must name each once, got {list(values)!r}")
        if "modes" in self.metrics and len(self.metrics) > 1:
            raise ConfigError(f"modes, of the 2-D mixtures, stands alone; got metrics={list(self.metrics)!r}")
