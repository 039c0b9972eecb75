"""Named configurations: the data sets of Tables I and II, for every network with and without DAT, and a few more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastdat.config import DATConfig
from fastdat.data.registry import DATASETS
from fastdat.metrics.eval_config import EvalConfig
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import ConfigError
from fastdat.util.settings import nearest

# Table I. The baselines do not mirror images, so neither do the presets; --set flip=true does.
_SNGAN: dict[str, Any] = {
    "batch_size": 64,
    "lr": 2e-4,
    "betas": (0.0, 0.9),
    "lr_decay": "linear",
    "n_dis": 5,
    "steps": 100_000,
}
_TABLE_I: dict[str, dict[str, Any]] = {
    "cifar10": {"resolution": 32},
    "cifar100": {"resolution": 32},
    "stl10": {"resolution": 48},
    "tiny-imagenet": {"resolution": 64, "lr_decay": "none"},
    "lsun-bedroom": {"resolution": 64},
    "folder": {"resolution": 64},  # not in the table: your own images
}
# Fig. 4: one D step, Adam's usual betas, the loss of the original GAN, z of length 100 (footnote 2).
_DCGAN: dict[str, Any] = {
    "nz": 100,
    "loss": "gan",
    "batch_size": 64,
    "lr": 2e-4,
    "betas": (0.5, 0.999),
    "lr_decay": "none",
    "n_dis": 1,
    "steps": 100_000,
}
# Fig. 3: `fastdat reproduce fig3` trains many of these at once.
_MLP: dict[str, Any] = {
    "nz": 16,
    "loss": "gan",
    "batch_size": 64,
    "lr": 1e-3,
    "betas": (0.5, 0.999),
    "lr_decay": "none",
    "n_dis": 1,
    "steps": 10_000,
    "samples": 1000,
    "log_every": 100,
}
# While training: scores after every tenth of the steps, from a fifth of the paper's fakes; a few percent of the time.
# Scores to compare with Table II come from `fastdat eval`, from all 50,000 fakes.
_EVAL = EvalConfig(every=10_000, fakes=10_000)
# The paper reports no IS for images that are far from ImageNet's (Sec. IV-B).
_EVAL_NO_IS = EvalConfig(every=10_000, fakes=10_000, metrics=("fid", "kid"))
# Your own images are seldom split into train and test.
_EVAL_FOLDER = EvalConfig(every=10_000, fakes=10_000, metrics=("fid", "kid"), splits=("train",))
_EVAL_MODES = EvalConfig(every=1000, fakes=10_000, metrics=("modes",), splits=("train",))

_ATTACKS: dict[str, dict[str, Any]] = {"": {"real": False, "fake": False}, "-dat": {}}


def _all() -> Iterator[tuple[str, TrainConfig]]:
    for dataset, row in _TABLE_I.items():
        scored = {"lsun-bedroom": _EVAL_NO_IS, "folder": _EVAL_FOLDER}.get(dataset, _EVAL)
        labelled = ("csngan",) if DATASETS[dataset].classes != 0 else ()
        for model in ("sngan", "ssgan", "infomaxgan", *labelled):
            yield from _pair(model, dataset, _SNGAN | row | {"eval": scored})
        yield from _pair("dcgan", dataset, _DCGAN | {"resolution": row["resolution"], "eval": scored})
    yield from _pair("dcgan", "mnist", _DCGAN | {"resolution": 28, "eval": _EVAL_NO_IS})
    for mixture in ("gaussians", "gaussians-imbalanced"):
        # Points have no bounds; those of images, +-1, would cut through the modes.
        yield from _pair("mlp", mixture, _MLP | {"eval": _EVAL_MODES}, bounds=None)


def _pair(
    model: str, dataset: str, settings: dict[str, Any], **attack: Any
) -> Iterator[tuple[str, TrainConfig]]:
    """One GAN on one data set: without an attack, and with DAT."""
    for suffix, positions in _ATTACKS.items():
        dat = DATConfig(**attack, **positions)
        yield f"{model}{suffix}-{dataset}", TrainConfig(model=model, dataset=dataset, dat=dat, **settings)


PRESETS: dict[str, TrainConfig] = dict(_all())


def preset(name: str) -> TrainConfig:
    """The preset called ``name``.

    Raises:
        ConfigError: there is no preset of that name.
    """
    if name not in PRESETS:
        hint = nearest(name, PRESETS)
        raise ConfigError(f"unknown preset {name!r}. {hint}`fastdat presets` lists all {len(PRESETS)}")
    return PRESETS[name]
