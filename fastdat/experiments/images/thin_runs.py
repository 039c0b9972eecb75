"""How long and how wide runs on images are: scaled down for two CPU cores, or as in the paper with its scores."""

from __future__ import annotations

from typing import Any

from fastdat.metrics.eval_config import EvalConfig
from fastdat.metrics.extractors import EFFICIENTNET
from fastdat.training.train_config import TrainConfig

WIDTH = 16
"""``ngf`` and ``ndf`` of the thin DCGAN; the full width of its G and D is 64."""

KID = f"train KID ({EFFICIENTNET})"
"""Head of the columns that hold the score of thin runs, which compares them with each other only."""

THIN_EVAL = EvalConfig(metrics=("kid",), splits=("train",), extractor=EFFICIENTNET, fakes=1_000, reals=2_000)
"""The score of thin runs. Features of Inception would take longer than the training."""

FULL_EVAL = EvalConfig(every=10_000, metrics=("fid", "kid", "is"), splits=("train",))
"""Scores of the paper while training: 50,000 fakes against 50,000 reals, after every tenth of the steps. The best step
is that of the lowest train FID. The paper does not say how often it scored."""

FULL_FID = EvalConfig(every=10_000, metrics=("fid",), splits=("train",))
"""The same for experiments that report train FID alone."""


def train_fid(config: TrainConfig) -> TrainConfig:
    """``config`` with train FID as its only score; how often, and from how many images, stays."""
    return config.replace({"eval.metrics": ["fid"], "eval.splits": ["train"]})


def thin(config: TrainConfig, steps: int, **changes: Any) -> TrainConfig:
    """``config`` scaled down: thin nets, few steps, one score after the last one.

    Args:
        config: of the paper's run.
        steps: G steps.
        changes: further settings, as in :meth:`TrainConfig.replace`; dots as two underscores: ``eval__fakes=500``.
    """
    scaled: dict[str, Any] = {
        "ngf": WIDTH,
        "ndf": WIDTH,
        "steps": steps,
        "eval": THIN_EVAL,
        "eval.every": steps,
        "sample_every": steps,
        "checkpoints.every": max(1, steps // 4),
        "checkpoints.keep": 1,
        "logger": "none",
    }
    return config.replace(scaled | {key.replace("__", "."): value for key, value in changes.items()})


def thin_protocol(config: TrainConfig, what: str = "DCGAN") -> str:
    """A sentence on how :func:`thin` scaled a run down, for the protocol."""
    scored = config.eval
    return (
        f"Scaled down: {what} with ngf = {config.ngf} and ndf = {config.ndf}, {config.steps:,} G steps, batch "
        f"{config.batch_size}, n_dis {config.n_dis}. Score: {', '.join(scored.metrics).upper()} from the features of "
        f"{scored.extractor}, {scored.fakes:,} fakes against {scored.reals:,} training images. It compares these runs "
        "with each other, and with no published number."
    )


def full_protocol(config: TrainConfig) -> str:
    """A sentence on the scores of a run of full length, for the protocol."""
    scored = config.eval
    return (
        f"{config.steps:,} G steps. {', '.join(scored.metrics).upper()} from the features of {scored.extractor}, "
        f"{scored.fakes:,} fakes against up to {scored.reals:,} training images, every {scored.every:,} steps; the "
        "best step is that of the lowest train FID among these. The paper does not say how often it scored."
    )
