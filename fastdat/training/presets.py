"""Named configurations: the rows of Table I, each for every network with and without DAT."""

from __future__ import annotations

from typing import Any

from fastdat.config import DATConfig
from fastdat.training.config import TrainConfig
from fastdat.training.errors import ConfigError

# Table I. The baselines mirror no image of CIFAR-10, so neither do the presets; --set flip=true does.
_TABLE_I: dict[str, dict[str, Any]] = {
    "cifar10": {
        "resolution": 32,
        "batch_size": 64,
        "lr": 2e-4,
        "betas": (0.0, 0.9),
        "lr_decay": "linear",
        "n_dis": 5,
        "steps": 100_000,
    },
}
_MODELS = ("sngan",)
_ATTACKS = {"": DATConfig(real=False, fake=False), "-dat": DATConfig()}

PRESETS: dict[str, TrainConfig] = {
    f"{model}{suffix}-{dataset}": TrainConfig(model=model, dataset=dataset, dat=attack, **row)
    for dataset, row in _TABLE_I.items()
    for model in _MODELS
    for suffix, attack in _ATTACKS.items()
}


def preset(name: str) -> TrainConfig:
    """The preset called ``name``.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; there are: {', '.join(PRESETS)}")
    return PRESETS[name]
