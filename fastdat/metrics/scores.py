"""Scores from features, computed by torch-fidelity: FID, KID, IS, precision and recall."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from fastdat.metrics.eval_config import EvalConfig
from fastdat.metrics.fidelity import torch_fidelity
from fastdat.util.errors import ConfigError

#: Whether more (+1) or less (-1) is better.
BETTER = {"fid": -1, "kid": -1, "is": +1, "precision": +1, "recall": +1, "modes": +1}


@dataclass(frozen=True)
class Statistics:
    """Mean (d,) and covariance (d, d) of features, float64 covariance: what FID compares."""

    mu: NDArray[Any]
    sigma: NDArray[Any]

    @classmethod
    def of(cls, features: Tensor) -> Statistics:
        found = torch_fidelity().metric_fid.fid_features_to_statistics(features)
        return cls(found["mu"], found["sigma"])


def against_reals(
    fake: Tensor, real: Tensor, real_statistics: Statistics, config: EvalConfig
) -> dict[str, float]:
    """Those of ``config.metrics`` that compare features of fakes (n, d) with those of reals (m, d).

    Raises:
        ConfigError: fewer images than a subset of KID asks for.
    """
    tf, scores = torch_fidelity(), {}
    if "fid" in config.metrics:
        a, b = Statistics.of(fake), real_statistics
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
        # In parts: all distances between 50,000 and 50,000 at once take 40 GB.
        found = tf.metric_prc.prc_features_to_metric(
            fake, real, verbose=False, save_cpu_ram=True, prc_batch_size=1000
        )
        scores |= {"precision": found["precision"], "recall": found["recall"]}
    return scores


def check_inception_score(config: EvalConfig, *, gives_logits: bool) -> None:
    """Refuse, before anything is generated, an IS that cannot be had.

    Raises:
        ConfigError: the extractor has no class logits, or there are fewer fakes than splits.
    """
    if not gives_logits:
        raise ConfigError(
            f"is needs class logits, which {config.extractor} does not give: leave it out of eval.metrics"
        )
    if config.fakes < config.is_splits:
        raise ConfigError(
            f"eval.is_splits={config.is_splits} needs as many fakes at least; got eval.fakes={config.fakes}"
        )


def of_fakes(logits: Tensor | None, config: EvalConfig) -> dict[str, float]:
    """IS (mean and standard deviation over its splits) from class logits (n, c), where it is asked for."""
    if "is" not in config.metrics:
        return {}
    found = torch_fidelity().metric_isc.isc_features_to_metric(
        logits, splits=config.is_splits, shuffle=True, rng_seed=config.seed
    )
    return {"is": found["inception_score_mean"], "is_std": found["inception_score_std"]}


def kid_subset_size(fakes: int, reals: int, config: EvalConfig) -> int:
    """Images of a subset: as set, or the smaller side spread over the subsets, at most 5,000 (50,000 over 10).

    Raises:
        ConfigError: there are fewer images than set.
    """
    fewest = min(fakes, reals)
    size = config.kid_subset_size or max(2, min(5000, fewest // config.kid_subsets))
    if size > fewest:
        raise ConfigError(
            f"eval.kid_subset_size={size}, but there are {fakes} fakes and {reals} reals: choose at most {fewest}"
        )
    return size


def rounded(scores: dict[str, float]) -> dict[str, float | None]:
    """Six significant digits, for the record; None for what is no number, which JSON has no word for."""
    return {name: float(f"{value:.6g}") if math.isfinite(value) else None for name, value in scores.items()}
