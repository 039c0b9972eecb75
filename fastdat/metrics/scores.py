"""Compute scores from features with torch-fidelity: FID, KID, IS, precision and recall."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastdat.metrics.eval_config import EvalConfig
from fastdat.metrics.fidelity import torch_fidelity
from fastdat.util.errors import ConfigError

#: +1 if a larger score is better, -1 if a smaller one is.
BETTER = {"fid": -1, "kid": -1, "is": +1, "precision": +1, "recall": +1, "modes": +1}


@dataclass(frozen=True)
class Statistics:
    """Mean (d,) and float64 covariance (d, d) of features, which FID compares."""

    mu: NDArray[Any]
    sigma: NDArray[Any]

    @classmethod
    def of(cls, features: Tensor) -> Statistics:
        """The statistics of features (n, d)."""
        found = torch_fidelity().metric_fid.fid_features_to_statistics(features)
        return cls(found["mu"], found["sigma"])


def against_reals(
    fake: Tensor, real: Tensor, real_statistics: Statistics, config: EvalConfig
) -> dict[str, float]:
    """FID, KID, precision and recall, as far as ``config.metrics`` names them.

    Args:
        fake: features of fakes (n, d).
        real: features of reals (m, d).
        real_statistics: the statistics of ``real``.
        config: which scores, and their settings.

    Raises:
        ConfigError: there are fewer images than in a subset of KID.
    """
    tf, scores = torch_fidelity(), {}
    if "fid" in config.metrics:
        a, b = Statistics.of(fake), real_statistics
        scores["fid"] = math.nan  # of features that are not all finite
        if np.isfinite(a.sigma).all() and np.isfinite(b.sigma).all():
            found = tf.metric_fid.fid_statistics_to_metric(vars(a), vars(b), verbose=False)
            scores["fid"] = found["frechet_inception_distance"]
    if "kid" in config.metrics:
        found = tf.metric_kid.kid_features_to_metric(
            fake,
            real,
            kid_subsets=config.kid_subsets,
            kid_subset_size=kid_subset_size(len(fake), len(real), config),
            rng_seed=config.seed,
            verbose=False,
        )
        scores["kid"] = found["kernel_inception_distance_mean"]
        scores["kid_std"] = found["kernel_inception_distance_std"]
    if "precision-recall" in config.metrics:
        # In batches: the distances between 50,000 fakes and 50,000 reals would take 40 GB at once.
        found = tf.metric_prc.prc_features_to_metric(
            fake, real, verbose=False, save_cpu_ram=True, prc_batch_size=1000
        )
        scores |= {"precision": found["precision"], "recall": found["recall"]}
    return scores


def check_inception_score(config: EvalConfig, *, gives_logits: bool) -> None:
    """Refuse an impossible IS before anything is generated.

    Raises:
        ConfigError: the extractor gives no class logits, or there are fewer fakes than splits.
    """
    if not gives_logits:
        raise ConfigError(
            f"is needs class logits, which {config.extractor} does not give: remove it from eval.metrics"
        )
    if config.fakes < config.is_splits:
        raise ConfigError(
            f"eval.is_splits={config.is_splits} needs at least as many fakes; got eval.fakes={config.fakes}"
        )


def of_fakes(logits: Tensor | None, config: EvalConfig) -> dict[str, float]:
    """IS from class logits (n, c), as mean and standard deviation over its splits, if ``config.metrics`` names it."""
    if "is" not in config.metrics:
        return {}
    found = torch_fidelity().metric_isc.isc_features_to_metric(
        logits, splits=config.is_splits, shuffle=True, rng_seed=config.seed
    )
    return {"is": found["inception_score_mean"], "is_std": found["inception_score_std"]}


def kid_subset_size(fakes: int, reals: int, config: EvalConfig) -> int:
    """Images per subset of KID: the configured number, or the smaller set divided among the subsets, at most 5,000.

    Raises:
        ConfigError: there are fewer images than configured.
    """
    fewest = min(fakes, reals)
    size = config.kid_subset_size or max(2, min(5000, fewest // config.kid_subsets))
    if size > fewest:
        raise ConfigError(
            f"eval.kid_subset_size={size}, but there are {fakes} fakes and {reals} reals: choose at most {fewest}"
        )
    return size


def rounded(scores: dict[str, float]) -> dict[str, float | None]:
    """Scores for the record, with six significant digits; None replaces NaN and infinity, which JSON cannot express."""
    return {name: float(f"{value:.6g}") if math.isfinite(value) else None for name, value in scores.items()}
