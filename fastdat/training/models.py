"""The GANs that can be trained by name: how their nets are made from a configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from fastdat import nets
from fastdat.data.mixture import MIXTURES
from fastdat.data.registry import DATASETS
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import ConfigError
from fastdat.util.settings import nearest

T = TypeVar("T")


@dataclass(frozen=True)
class Model:
    """A generator and a discriminator.

    Args:
        generator, discriminator: make a net from the configuration and the number of channels (or dimensions) of the
            data.
        conditional: both nets need labels beside z and images.
        channels: numbers of channels that the model can have.
        points: it models 2-D points instead of images.
    """

    generator: Callable[[TrainConfig, int], nn.Module]
    discriminator: Callable[[TrainConfig, int], nn.Module]
    conditional: bool = False
    channels: tuple[int, ...] = (3,)
    points: bool = False


def _in_colour(generator: Any, discriminator: Any) -> Model:
    return Model(
        lambda config, _: generator(config.resolution, config.ngf, config.nz),
        lambda config, _: discriminator(config.resolution, config.ndf),
    )


def _hidden(width: int | None) -> int:
    return 64 if width is None else width  # Sec. IV-A


MODELS: dict[str, Model] = {
    "sngan": _in_colour(nets.SNGANGenerator, nets.SNGANDiscriminator),
    "ssgan": _in_colour(nets.SSGANGenerator, nets.SSGANDiscriminator),
    "infomaxgan": _in_colour(nets.InfoMaxGANGenerator, nets.InfoMaxGANDiscriminator),
    "dcgan": Model(
        lambda config, channels: nets.DCGANGenerator(config.resolution, config.ngf, config.nz, channels),
        lambda config, channels: nets.DCGANDiscriminator(config.resolution, config.ndf, channels),
        channels=(1, 3),
    ),
    "table3": _in_colour(nets.Table3Generator, nets.Table3Discriminator),
    "r3gan": _in_colour(nets.R3GANGenerator, nets.R3GANDiscriminator),
    "csngan": Model(
        lambda config, _: nets.ConditionalSNGANGenerator(
            config.resolution, classes_of(config), config.ngf, config.nz
        ),
        lambda config, _: nets.ConditionalSNGANDiscriminator(
            config.resolution, classes_of(config), config.ndf
        ),
        conditional=True,
    ),
    "mlp": Model(
        lambda config, _: nets.MLPGenerator(config.nz, hidden=_hidden(config.ngf)),
        lambda config, _: nets.MLPDiscriminator(hidden=_hidden(config.ndf)),
        channels=(2,),
        points=True,
    ),
}


def model_of(config: TrainConfig) -> Model:
    """The model of ``config``, checked against its data set.

    Raises:
        ConfigError: there is no such model or data set, or they do not fit each other.
    """
    model = choose("model", config.model, MODELS)
    channels = channels_of(config)
    if channels not in model.channels:
        fitting = [name for name, other in MODELS.items() if channels in other.channels]
        what = "2-D points" if channels == 2 else f"images with {channels} channel{'s' * (channels > 1)}"
        raise ConfigError(
            f"model {config.model} cannot model {what}, which {config.dataset} has; use one of {', '.join(fitting)}"
        )
    if config.classes is not None and not model.conditional:
        conditional = [name for name, other in MODELS.items() if other.conditional]
        raise ConfigError(
            f"classes={config.classes} would have no effect: model {config.model} takes no labels. Leave it out, or "
            f"use {' or '.join(conditional)}"
        )
    of_images = [name for name, off in (("augment", "none"), ("flip", False)) if getattr(config, name) != off]
    of_images += [f"the regularizer {term.name}" for term in config.regularizers if "augment" in term]
    if model.points and of_images:
        raise ConfigError(
            f"{' and '.join(of_images)} would change images, and {config.dataset} has points: leave it out"
        )
    return model


def dataset_of(config: TrainConfig) -> str:
    """The name of the data set or mixture of ``config``.

    Raises:
        ConfigError: none is set, or there is no such data set.
    """
    return choose("dataset", config.dataset, {name: name for name in (*DATASETS, *MIXTURES)})


def channels_of(config: TrainConfig) -> int:
    """Channels of the images of ``config.dataset``; 2 for the 2-D mixtures."""
    dataset = dataset_of(config)
    return 2 if dataset in MIXTURES else DATASETS[dataset].channels


def classes_of(config: TrainConfig) -> int:
    """Number of classes of ``config.dataset``; of a folder, which has as many as it has subfolders, ``config.classes``.

    Raises:
        ConfigError: it has no labels, another number of classes than ``config.classes``, or the number is not known.
    """
    classes = choose("dataset", config.dataset, DATASETS).classes
    if classes is None:
        if config.classes is None:
            raise ConfigError(
                f"model {config.model} needs the number of classes, which only the images of a {config.dataset} tell: "
                "set classes"
            )
        return config.classes
    if classes and config.classes not in (None, classes):
        raise ConfigError(
            f"got classes={config.classes}, but {config.dataset} has {classes}: leave classes out"
        )
    if not classes:
        labelled = [name for name, spec in DATASETS.items() if spec.classes != 0]
        raise ConfigError(
            f"model {config.model} needs labels, but {config.dataset} has none; use one of {', '.join(labelled)}"
        )
    return classes


def build_nets(config: TrainConfig) -> tuple[nn.Module, nn.Module]:
    """G and D of ``config``, on the CPU, in training mode: the same weights for the same seed, on any machine.

    Raises:
        ConfigError: there is no such model, resolution or width, or it does not fit the data set.
    """
    model, channels = model_of(config), channels_of(config)
    with torch.random.fork_rng(devices=[]):  # leaves the caller's random numbers alone
        torch.manual_seed(config.seed)
        try:
            return model.generator(config, channels), model.discriminator(config, channels)
        except ValueError as error:
            raise ConfigError(str(error)) from error


def choose(what: str, name: str | None, table: dict[str, T]) -> T:
    """``table[name]``.

    Raises:
        ConfigError: ``name`` is None or unknown; the message lists the names.
    """
    if name is None or name not in table:
        wrong = f"no {what} is set. " if name is None else f"unknown {what} {name!r}. {nearest(name, table)}"
        raise ConfigError(f"{wrong}There are: {', '.join(table)}")
    return table[name]
