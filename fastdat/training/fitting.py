"""Settings of a run that must fit each other."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from fastdat.config import DATConfig
from fastdat.losses import get_loss, is_pair
from fastdat.training.regularization import attack_of
from fastdat.util.errors import ConfigError

if TYPE_CHECKING:
    from fastdat.training.train_config import TrainConfig


def check_fitting(config: TrainConfig) -> None:
    """Refuse settings that contradict each other, or of which one would have no effect.

    Raises:
        ConfigError: which ones, and what to do.
    """
    if config.attack is not None:
        _check_attack(config)
    elif not config.dat.attacks and config.dat_generator == "none":
        _check_no_attack(config.dat)
    if is_pair(get_loss(config.loss)) and config.dat.seed != "logits":
        raise ConfigError(
            f"dat.seed={config.dat.seed} differentiates the values g1 and g2 of single samples, and the loss "
            f"{config.loss} compares pairs: set dat.seed=logits"
        )
    cosine = config.cosine
    if cosine.lr is not None and config.lr_decay != "none":
        raise ConfigError(
            f"cosine.lr={cosine.lr:g} and lr_decay={config.lr_decay} both set the rates: set lr_decay=none, or "
            "cosine.lr=null"
        )
    if cosine.regularizers is not None and not config.regularizers:
        raise ConfigError(
            f"cosine.regularizers={cosine.regularizers:g} would have no effect: there are no regularizers"
        )
    if cosine.ema_halflife and not config.ema:
        raise ConfigError("cosine.ema_halflife would have no effect: there is no running average, ema is 0")


def _changed(dat: DATConfig, but: tuple[str, ...]) -> list[str]:
    """Names of the attack's settings that are not the defaults, without those in ``but``."""
    default = DATConfig()
    names = [field.name for field in dataclasses.fields(dat) if field.name not in but]
    return [name for name in names if getattr(dat, name) != getattr(default, name)]


def _in_words(changed: list[str]) -> str:
    return ", ".join(f"dat.{name}" for name in changed)


def _check_no_attack(dat: DATConfig) -> None:
    changed = _changed(dat, but=("bounds", "power_iterations", "real", "fake"))
    if changed:
        raise ConfigError(
            f"{_in_words(changed)} would have no effect: dat.real and dat.fake are false, so there is no attack. Set "
            "them to true, start from a preset with -dat in its name, or leave it out"
        )


def _check_attack(config: TrainConfig) -> None:
    assert config.attack is not None
    dat = config.dat
    changed = _changed(dat, but=("bounds", "real", "fake"))
    if dat.real != dat.fake:
        changed += ["real", "fake"]
    if changed:
        raise ConfigError(
            f"attack: {config.attack.name} takes DAT's place, so that {_in_words(changed)} "
            "would have no effect: leave it out, or the attack"
        )
    if config.dat_generator != "none":
        raise ConfigError(
            f"dat_generator={config.dat_generator} puts DAT into G's step, which {config.attack.name} has no part in: "
            "set dat_generator=none, or leave the attack out"
        )
    attack_of(config)
