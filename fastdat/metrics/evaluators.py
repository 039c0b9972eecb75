"""Evaluators: score generated samples, and return records that name everything the scores depend on."""

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
from fastdat.metrics.eval_config import EvalConfig
from fastdat.metrics.extractors import Extractor, make_extractor
from fastdat.metrics.fidelity import torch_fidelity
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

Record = dict[str, Any]
"""The scores against one split, and what they depend on: extractor, hash of its weights, counts, seed, versions."""

Fakes = Callable[[int], Iterator[Tensor]]
"""Makes ``count`` generated samples in batches: images uint8 (n, C, H, W), or points (n, 2)."""

Progress = Callable[[str, int, int], bool | None]
"""Called after each batch with what is worked on, how many are done and how many there are; returns False to stop."""


def keep_going(what: str, done: int, total: int) -> None:
    """Shows nothing, and never asks to stop."""


class Evaluator(Protocol):
    """Scores generated samples."""

    def prepare(self) -> None:
        """Load what is needed, so that errors come before training rather than hours later.

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
            One record per split, the one that ranks checkpoints first. None soon after ``progress`` has returned False:
            an evaluator that goes on lets Ctrl-C and SIGTERM wait until all scores are made.
        """
        ...


class ImageEvaluator:
    """Compares generated images with real ones by the features of one extractor.

    Args:
        config: which scores, and from how many images.
        reals: for each split of ``config.splits`` its images, or a function that reads them.
        device: where features are computed.
        cache: folder for the features of reals; by default :func:`fastdat.metrics.reals.default_cache`.
    """

    def __init__(
        self,
        config: EvalConfig,
        reals: Mapping[str, ImageSet | Callable[[], ImageSet]],
        device: torch.device,
        cache: Path | None = None,
    ) -> None:
        self._config = config
        self._sources = reals
        self._device = device
        self._cache = cache or default_cache()
        self._extractor: Extractor | None = None
        self._data: dict[str, ImageSet] = {}
        self._reals: dict[str, Reals] = {}

    def prepare(self) -> None:
        if self._extractor is not None:
            return
        config = self._config
        torch_fidelity()
        # Making a net draws its first weights; the caller's random numbers stay as they were.
        with torch.random.fork_rng(devices=[]):
            extractor = make_extractor(config.extractor, config.weights, self._device)
        if "is" in config.metrics:
            _, logits = extractor(torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device=self._device))
            check_inception_score(config, gives_logits=logits is not None)
        for split in config.splits:
            data = self._data[split] = self._read(split)
            if "kid" in config.metrics:
                kid_subset_size(config.fakes, min(config.reals, len(data)), config)
        self._extractor = extractor

    def __call__(self, fakes: Fakes, progress: Progress = keep_going) -> list[Record] | None:
        start = time.monotonic()
        self.prepare()
        config = self._config
        for split in config.splits:  # first, since their features are kept even if the fakes are interrupted
            if not self._load_reals(split, progress):
                return None
        found = self._features(fakes, progress)
        if found is None:
            return None
        features, logits = found
        shared = of_fakes(logits, config)
        records = []
        for split in config.splits:
            reals = self._reals[split]
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
            others = [other for other in self._config.splits if other != split]
            hint = f"; with eval.splits={json.dumps(others)} it is not needed" if others else ""
            raise DataError(f"{error}\nIt is needed for scores against the {split} split{hint}.") from error

    def _features(self, fakes: Fakes, progress: Progress) -> tuple[Tensor, Tensor | None] | None:
        """Features (n, d) and class logits (n, c) of the fakes; None if ``progress`` asked to stop."""
        assert self._extractor is not None
        features, logits, done = [], [], 0
        for batch in fakes(self._config.fakes):
            of_batch, logits_of_batch = self._extractor(batch.to(self._device))
            features.append(of_batch)
            logits += [] if logits_of_batch is None else [logits_of_batch]
            done += len(batch)
            if progress("fakes", done, self._config.fakes) is False:
                return None
        return torch.cat(features), torch.cat(logits) if logits else None

    def _load_reals(self, split: str, progress: Progress) -> bool:
        """Compute or load the features of reals; False if ``progress`` asked to stop.

        Not part of :meth:`prepare`: this takes a while, and cannot fail the way a missing file does.
        """
        if split not in self._reals:
            assert self._extractor is not None
            config = self._config
            reals = real_features(
                self._data[split],
                config.reals,
                config.seed,
                self._extractor,
                self._device,
                config.batch_size,
                self._cache,
                lambda done, total: progress(f"reals ({split})", done, total),
            )
            if reals is None:
                return False
            self._reals[split] = reals
        return True

    def _provenance(self, fakes: int, reals: int, data: ImageSet) -> Record:
        assert self._extractor is not None
        provenance: Record = {
            "extractor": self._extractor.name,
            "extractor_sha256": self._extractor.sha256,
            "data": data.name,
            "data_sha256": data.fingerprint,
            "fake_count": fakes,
            "real_count": reals,
            "seed": self._config.seed,
            "resolution": data.resolution,
            "resize": self._extractor.resize,
            "versions": versions(),
        }
        if "kid" in self._config.metrics:
            size = kid_subset_size(fakes, reals, self._config)
            provenance |= {"kid_subsets": self._config.kid_subsets, "kid_subset_size": size}
        if "is" in self._config.metrics:
            provenance["is_splits"] = self._config.is_splits
        return provenance


class ModesEvaluator:
    """Counts the modes of a 2-D mixture that generated points cover (Fig. 3)."""

    def __init__(self, config: EvalConfig, mixture: Mixture) -> None:
        self._config, self._mixture = config, mixture

    def prepare(self) -> None:
        return None

    def __call__(self, fakes: Fakes, progress: Progress = keep_going) -> list[Record] | None:
        start = time.monotonic()
        batches, done = [], 0
        for batch in fakes(self._config.fakes):
            batches.append(batch.cpu())
            done += len(batch)
            if progress("fakes", done, self._config.fakes) is False:
                return None
        points = torch.cat(batches)
        found = coverage(points, self._mixture)
        scores = {"modes": found.modes, "high_quality": found.high_quality, "kl": found.kl}
        return [
            {
                "split": "train",
                "scores": rounded({name: value.item() for name, value in scores.items()}),
                "extractor": "none",
                "data": self._mixture.name,
                "fake_count": len(points),
                "seed": self._config.seed,
                "versions": provenance.versions(),
                "seconds": round(time.monotonic() - start, 2),
            }
        ]


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
