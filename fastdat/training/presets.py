"""Named configurations: the data sets of Tables I and II, for every network with and without DAT, what Table III
compares DAT with, and a few more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastdat.config import DATConfig
from fastdat.data.mixture import MIXTURES
from fastdat.data.registry import DATASETS
from fastdat.metrics.eval_config import EvalConfig
from fastdat.training.cosine import CosineConfig
from fastdat.training.device_settings import AUTO, AUTOMATIC
from fastdat.training.large_batch import at_batch
from fastdat.training.table3_config import table3_config
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
# Huang et al. 2024, "The GAN is dead; long live the GAN!", on CIFAR-10: 20 million images, while gamma falls from 0.05
# to 0.005 and the half-life of the average grows to 5 million images. Its adaptive augmentation (ADA) is left out, and
# on a GPU all of G and D is computed in bf16, which is closer to the released code than fp32.
_R3GAN: dict[str, Any] = {
    "nz": 64,
    "loss": "rpgan",
    "regularizers": ({"name": "r1", "gamma": 0.05}, {"name": "r2", "gamma": 0.05}),
    "batch_size": 512,
    "lr": 2e-4,
    "betas": (0.0, 0.9),
    "lr_decay": "none",
    "cosine": CosineConfig(lr=5e-5, beta2=0.99, regularizers=0.1, ema_halflife=True),
    "ema": 0.5 ** (512 / 5e6),
    "n_dis": 1,
    "steps": 39_063,
}
# What the paper compares DAT with in Table III, and ALP and RobGAN of its related work, in place of DAT. AR compares
# the sigmoid of D's logits, which the released code's D ends in; RFM the output of D's last hidden convolution, before
# batch norm.
_REGULARIZERS: dict[str, dict[str, Any]] = {
    "gp": {"name": "gp"},
    "lp": {"name": "lp"},
    "0gp": {"name": "0gp"},
    "ar": {"name": "ar", "of": "output"},
    "rfm": {"name": "rfm", "path": "convs.2"},
    "alp": {"name": "alp"},
}
_OTHER_ATTACKS: dict[str, dict[str, Any]] = {"asgan": {"name": "asgan"}, "robgan": {"name": "robgan"}}
# While training: scores after every tenth of the steps, from a fifth of the paper's fakes; a few percent of the time.
# Scores to compare with Table II come from `fastdat eval`, from all 50,000 fakes.
_EVAL = EvalConfig(every=10_000, fakes=10_000)
_EVAL_R3GAN = EvalConfig(every=4000, fakes=10_000)
# The paper reports no IS for images that are far from ImageNet's (Sec. IV-B).
_EVAL_NO_IS = EvalConfig(every=10_000, fakes=10_000, metrics=("fid", "kid"))
# Your own images are seldom split into train and test.
_EVAL_FOLDER = EvalConfig(every=10_000, fakes=10_000, metrics=("fid", "kid"), splits=("train",))
_EVAL_MODES = EvalConfig(every=1000, fakes=10_000, metrics=("modes",), splits=("train",))

# Of nets on images: on a GPU bf16 and what convolutions like, on a CPU fp32; fastdat/training/device_settings.py.
_FAST: dict[str, Any] = dict.fromkeys(AUTOMATIC, AUTO)
# Not in the paper: LSUN in large batches, for as many images as Table I's 100,000 steps of 64 (docs/large_batch.md).
_LARGE_BATCHES = (2048, 8192)
_ATTACKS: dict[str, dict[str, Any]] = {"": {"real": False, "fake": False}, "-dat": {}}


def _all() -> Iterator[tuple[str, TrainConfig]]:
    for dataset, row in _TABLE_I.items():
        scored = {"lsun-bedroom": _EVAL_NO_IS, "folder": _EVAL_FOLDER}.get(dataset, _EVAL)
        labelled = ("csngan",) if DATASETS[dataset].classes != 0 else ()
        for model in ("sngan", "ssgan", "infomaxgan", *labelled):
            yield from _pair(model, dataset, _SNGAN | row | {"eval": scored})
        yield from _pair("dcgan", dataset, _DCGAN | {"resolution": row["resolution"], "eval": scored})
    lsun = _SNGAN | _TABLE_I["lsun-bedroom"] | {"eval": _EVAL_NO_IS}
    for name, config in _pair("sngan", "lsun-bedroom", lsun):
        for batch in _LARGE_BATCHES:
            yield f"{name}-batch{batch}", at_batch(config, batch)
    yield from _pair("dcgan", "mnist", _DCGAN | {"resolution": 28, "eval": _EVAL_NO_IS})
    fig4 = _DCGAN | {"resolution": 32, "eval": _EVAL}
    off = DATConfig(**_ATTACKS[""])
    for name, term in _REGULARIZERS.items():
        yield _one(f"dcgan-{name}-cifar10", "dcgan", "cifar10", fig4 | {"dat": off, "regularizers": (term,)})
    for name, attack in _OTHER_ATTACKS.items():
        yield _one(f"dcgan-{name}-cifar10", "dcgan", "cifar10", fig4 | {"attack": attack})
    for arm, suffix in (("none", ""), ("dat", "-dat")):  # the other cells of Table III are table3_config's
        yield f"table3{suffix}-cifar10", table3_config("gan", arm)
    # Its G has no tanh: samples are not confined to the range of the images, so none is clipped to it.
    yield from _pair("r3gan", "cifar10", _R3GAN | {"resolution": 32, "eval": _EVAL_R3GAN}, bounds=None)
    for mixture in MIXTURES:
        # Points have no bounds; those of images, +-1, would cut through the modes.
        yield from _pair("mlp", mixture, _MLP | {"eval": _EVAL_MODES}, bounds=None)


def _pair(
    model: str, dataset: str, settings: dict[str, Any], **attack: Any
) -> Iterator[tuple[str, TrainConfig]]:
    """One GAN on one data set: without an attack, and with DAT."""
    for suffix, positions in _ATTACKS.items():
        dat = DATConfig(**attack, **positions)
        yield _one(f"{model}{suffix}-{dataset}", model, dataset, settings | {"dat": dat})


def _one(name: str, model: str, dataset: str, settings: dict[str, Any]) -> tuple[str, TrainConfig]:
    fast = {} if dataset in MIXTURES else _FAST
    return name, TrainConfig(model=model, dataset=dataset, **(fast | settings))


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
