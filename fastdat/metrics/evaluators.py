"""Evaluators: score generated samples, and return records that name everything the scores depend on.

Several processes (ranks) share out the samples, and their scores are those of one process: each generates batches and
extracts features, and rank 0 computes the scores from the features of all.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fastdat.data import ImageSet
from fastdat.data.mixture import Mixture
from fastdat.metrics.equal_on_ranks import check_equal
from fastdat.metrics.eval_config import FEWEST, EvalConfig
from fastdat.metrics.extractors import Extractor, make_extractor
from fastdat.metrics.fidelity import torch_fidelity
from fastdat.metrics.first_computes import first_computes
from fastdat.metrics.in_turns import StopAskedError, in_turns
from fastdat.metrics.modes import coverage
from fastdat.metrics.reals import Reals, default_cache, real_features
from fastdat.metrics.scores import (
    BETTER,
    against_reals,
    check_inception_score,
    kid_subset_size,
    of_fakes,
    rounded,
)
from fastdat.util import provenance
from fastdat.util.errors import DataError
from fastdat.util.ranks import Ranks

Record = dict[str, Any]
"""The scores against one split, and what they depend on: extractor, hash of its weights, counts, seed, versions."""


class Fakes(Protocol):
    """Makes generated samples."""

    def __call__(self, count: int, ranks: Ranks = ..., /) -> Iterator[Tensor]:
        """``count`` samples in batches: images uint8 (n, C, H, W), or points (n, 2).

        With several ``ranks``, which :class:`ImageEvaluator` passes only then: of these batches number ``rank``,
        ``rank + size``, ``rank + 2 size`` ..., so that all ranks together make ``count`` samples.
        """
        ...


Progress = Callable[[str, int, int], bool | None]
"""Called after each batch with what is worked on, how many are done and how many there are; returns False to stop."""


def keep_going(what: str, done: int, total: int) -> None:
    """Shows nothing, and never asks to stop."""


_Features = tuple[Tensor, Tensor | None]
"""Of one batch: features (n, d) and class logits (n, c)."""


class Evaluator(Protocol):
    """Scores generated samples. Where several ranks train, each calls both methods at the same step."""

    def prepare(self) -> None:
        """Load what is needed, so that errors come before training rather than hours later, and to all ranks.

        Raises:
            ConfigError: the extractor or its weights are missing, or it cannot give the scores.
            DataError: reals are missing.
        """
        ...

    def __call__(self, fakes: Fakes, progress: Progress = keep_going) -> list[Record] | None:
        """Score the samples.

        Args:
            fakes: makes the samples.
            progress: called after each batch of samples or reals.

        Returns:
            One record per split, the one that ranks checkpoints first. None soon after ``progress`` has returned False
            (on any rank, then on all): an evaluator that goes on lets Ctrl-C and SIGTERM wait until all scores are
            made.
        """
        ...


class ImageEvaluator:
    """Compares generated images with real ones by the features of one extractor.

    Several ranks share out the images, batch by batch. No image leaves its rank: features and logits go to rank 0 after
    each batch, and rank 0 computes the scores. With Inception, it holds 410 MB of features for 50,000 fakes, 202 MB of
    logits, and 410 MB for 50,000 reals of each split, each of them twice while the batches are joined: as much as one
    process without others, and the features of one batch of each rank. The other ranks hold those of their own batch.

    Args:
        config: which scores, and from how many images.
        reals: for each split of ``config.splits`` its images, or a function that reads them.
        device: where features are computed.
        cache: folder for the features of reals; by default :func:`fastdat.metrics.reals.default_cache`. Rank 0 alone
            uses it.
        ranks: those that score together; None: all processes of ``torch.distributed`` at the time of a call.

    Attributes:
        config: as given.
    """

    def __init__(
        self,
        config: EvalConfig,
        reals: Mapping[str, ImageSet | Callable[[], ImageSet]],
        device: torch.device,
        cache: Path | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.config = config
        self._sources = reals
        self._device = device
        self._cache = cache or default_cache()
        self._given_ranks = ranks
        self._extractor: Extractor | None = None
        self._data: dict[str, ImageSet] = {}
        self._reals: dict[str, Reals | None] = {}  # None on other ranks than the first

    @property
    def _ranks(self) -> Ranks:
        return Ranks.now() if self._given_ranks is None else self._given_ranks

    def prepare(self) -> None:
        if self._extractor is not None:
            return
        ranks = self._ranks
        extractor = ranks.together(self._prepared)
        if ranks:
            hint = "Each rank reads the files of its own machine, which must be the same on all of them"
            check_equal(ranks, ranks.together(lambda: self._facts(extractor)), hint)
        self._extractor = extractor

    def _facts(self, extractor: Extractor) -> dict[str, str]:
        """What must be the same on all ranks."""
        weights = {f"the hash of the weights of {extractor.name}": extractor.sha256}
        return weights | {
            f"the hash of the {split} images": of.fingerprint for split, of in self._data.items()
        }

    def _prepared(self) -> Extractor:
        """Read the data and make the extractor; raises as :meth:`prepare`."""
        config = self.config
        torch_fidelity()
        # Making a net draws its first weights; the caller's random numbers stay as they were.
        with torch.random.fork_rng(devices=[]):
            extractor = make_extractor(config.extractor, config.weights, self._device)
        if "is" in config.metrics:
            _, logits = extractor(torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device=self._device))
            check_inception_score(config, gives_logits=logits is not None)
        for split in config.splits:
            data = self._data[split] = self._read(split)
            if len(data) < FEWEST:
                raise DataError(
                    f"the {split} split has {len(data)} image{'s' * (len(data) > 1)}, and scores need {FEWEST} or "
                    f"more: leave {split} out of eval.splits, or give more images"
                )
            if "kid" in config.metrics:
                kid_subset_size(config.fakes, min(config.reals, len(data)), config)
        return extractor

    def __call__(self, fakes: Fakes, progress: Progress = keep_going) -> list[Record] | None:
        start, splits = time.monotonic(), self.config.splits
        self.prepare()
        try:
            # Reals first, since their features are kept even if the fakes are interrupted.
            for split in splits:
                self._load_reals(split, progress)
            found = self._features(fakes, progress)
        except StopAskedError:
            return None
        records: list[Record] = []
        return first_computes(
            lambda: self._add_records(records, found, start),
            lambda: progress("splits scored", len(records), len(splits)),
            self._ranks,
        )

    def _add_records(self, records: list[Record], of_batches: list[_Features], start: float) -> list[Record]:
        """Add to ``records`` what rank 0 finds from the features of all fakes and reals."""
        config = self.config
        features = torch.cat([features for features, _ in of_batches])
        logits = [logits for _, logits in of_batches if logits is not None]
        shared = of_fakes(torch.cat(logits) if logits else None, config)
        for split in config.splits:
            reals = self._reals[split]
            assert reals is not None
            scores = against_reals(features, reals.features, reals.statistics, config) | shared
            records.append(
                {
                    "split": split,
                    "scores": rounded(scores),
                    **self._provenance(len(features), len(reals.features), self._data[split]),
                    "seconds": round(time.monotonic() - start, 2),
                }
            )
            start = time.monotonic()
        return records

    def _read(self, split: str) -> ImageSet:
        source = self._sources[split]
        try:
            return source if isinstance(source, ImageSet) else source()
        except DataError as error:
            others = [other for other in self.config.splits if other != split]
            hint = f"; with eval.splits={json.dumps(others)} it is not needed" if others else ""
            raise DataError(f"{error}\nIt is needed for scores against the {split} split{hint}.") from error

    def _features(self, fakes: Fakes, progress: Progress) -> list[_Features]:
        """Features and class logits of each batch of fakes, on rank 0."""
        assert self._extractor is not None
        extractor, count, ranks = self._extractor, self.config.fakes, self._ranks
        return in_turns(
            ranks.together(lambda: fakes(count, ranks) if ranks else fakes(count)),
            lambda batch: extractor(batch.to(self._device)),
            lambda done: progress("fakes", done, count),
            count,
            ranks,
        )

    def _load_reals(self, split: str, progress: Progress) -> None:
        """Compute or load the features of reals.

        Not part of :meth:`prepare`: this takes a while, and cannot fail the way a missing file does.
        """
        if split in self._reals:
            return
        assert self._extractor is not None
        config = self.config
        self._reals[split] = real_features(
            self._data[split],
            config.reals,
            config.seed,
            self._extractor,
            self._device,
            config.batch_size,
            self._cache,
            lambda done, total: progress(f"reals ({split})", done, total),
            self._ranks,
        )

    def _provenance(self, fakes: int, reals: int, data: ImageSet) -> Record:
        assert self._extractor is not None
        provenance: Record = {
            "extractor": self._extractor.name,
            "extractor_sha256": self._extractor.sha256,
            "data": data.name,
            "data_sha256": data.fingerprint,
            "fake_count": fakes,
            "real_count": reals,
            "seed": self.config.seed,
            "resolution": data.resolution,
            "resize": self._extractor.resize,
            "versions": versions(),
        }
        if "kid" in self.config.metrics:
            size = kid_subset_size(fakes, reals, self.config)
            provenance |= {"kid_subsets": self.config.kid_subsets, "kid_subset_size": size}
        if "is" in self.config.metrics:
            provenance["is_splits"] = self.config.is_splits
        return provenance


class ModesEvaluator:
    """Counts the modes of a 2-D mixture that generated points cover (Fig. 3).

    Rank 0 makes and counts all points, which takes less time than sharing them out; the others get its record.

    Args:
        config: how many points.
        mixture: the modes.
        ranks: as for :class:`ImageEvaluator`.

    Attributes:
        config: as given.
    """

    def __init__(self, config: EvalConfig, mixture: Mixture, ranks: Ranks | None = None) -> None:
        self.config, self._mixture, self._ranks = config, mixture, ranks

    def prepare(self) -> None:
        return None

    def __call__(self, fakes: Fakes, progress: Progress = keep_going) -> list[Record] | None:
        start, count = time.monotonic(), self.config.fakes
        ranks = Ranks.now() if self._ranks is None else self._ranks
        try:
            batches = in_turns(
                ranks.together(lambda: fakes(count) if ranks.first else iter(())),
                lambda batch: batch.cpu(),
                lambda done: progress("fakes", done, count),
                count,
                ranks,
            )
        except StopAskedError:
            return None
        return ranks.by_first(lambda: [self._record(torch.cat(batches), start)])

    def _record(self, points: Tensor, start: float) -> Record:
        found = coverage(points, self._mixture)
        scores = {"modes": found.modes, "high_quality": found.high_quality, "kl": found.kl}
        return {
            "split": "train",
            "scores": rounded({name: value.item() for name, value in scores.items()}),
            "extractor": "none",
            "data": self._mixture.name,
            "fake_count": len(points),
            "seed": self.config.seed,
            "versions": provenance.versions(),
            "seconds": round(time.monotonic() - start, 2),
        }


def versions() -> dict[str, str]:
    """Versions of the libraries that a score depends on."""
    return provenance.versions() | {"torch_fidelity": str(torch_fidelity().__version__)}


def shown(record: Record) -> str:
    """A record in one line, which always names the extractor."""
    values = {
        name: "no number" if value is None else f"{value:.5g}" for name, value in record["scores"].items()
    }
    scores = "  ".join(f"{name} {value}" for name, value in values.items())
    return f"step {record['step']}  {record['split']} [{record['extractor']}]  {scores}"


def ranking(record: Record, config: EvalConfig) -> tuple[str, float]:
    """The score that ranks checkpoints: its name, and a number that is larger for a better score."""
    name = {"precision-recall": "precision"}.get(config.metrics[0], config.metrics[0])
    value = record["scores"][name]
    return name, -math.inf if value is None else BETTER[name] * value
