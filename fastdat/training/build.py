"""From a configuration to a trainer: nets, optimizers and data by name."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

import fastdat
from fastdat.data import ImageSet, TrainSampler
from fastdat.data.registry import TRAIN_READERS
from fastdat.fused_norm import fuse_spectral_norm
from fastdat.nets import SNGANDiscriminator, SNGANGenerator
from fastdat.spectral import spectral_weights
from fastdat.training.config import TrainConfig
from fastdat.training.display import Display
from fastdat.training.errors import ConfigError
from fastdat.training.trainer import Trainer

#: Generator and discriminator of each model.
MODELS: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "sngan": (SNGANGenerator, SNGANDiscriminator),
}

T = TypeVar("T")


def load_data(config: TrainConfig, folder: str | Path) -> ImageSet:
    """The training images of ``config.dataset`` in ``folder``.

    Raises:
        ConfigError: no such data set, or images of another resolution or too few.
        DataError: data that is missing or damaged.
    """
    data = _choose("dataset", config.dataset, TRAIN_READERS)(folder)
    if data.resolution != config.resolution:
        raise ConfigError(f"{data.name} is {data.resolution} pixels wide; got resolution={config.resolution}")
    return data


def build_nets(config: TrainConfig) -> tuple[nn.Module, nn.Module]:
    """G and D of ``config``, on the CPU, in training mode: the same weights for the same seed, on any machine.

    Raises:
        ConfigError: no such model, resolution or width.
    """
    make_g, make_d = _choose("model", config.model, MODELS)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
        torch.manual_seed(config.seed)
        try:
            return make_g(config.resolution, config.ngf, config.nz), make_d(config.resolution, config.ndf)
        except ValueError as error:
            raise ConfigError(str(error)) from error


def build_trainer(
    config: TrainConfig, data: ImageSet, outdir: str | Path, *, display: Display | None = None
) -> Trainer:
    """A trainer ready to :meth:`~Trainer.train`, its run folder made.

    Raises:
        ConfigError: settings that do not fit each other, the data or this machine.
        RunFolderError: ``outdir`` cannot be used.
    """
    device = choose_device(config.device)
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    netG, netD = (net.to(device, memory_format=memory_format) for net in build_nets(config))  # type: ignore[call-overload]
    if spectral_weights(dict(netD.named_modules())):
        fuse_spectral_norm(netD)  # for G's step; dat_step does so by itself
    optG, optD = (
        torch.optim.Adam(net.parameters(), lr=config.lr, betas=config.betas, fused=True)
        for net in (netG, netD)
    )
    try:
        batches = TrainSampler(
            data,
            config.batch_size,
            seed=config.seed,
            flip=config.flip,
            device=device,
            memory_format=memory_format,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    trainer = Trainer(netG, netD, optG, optD, batches, config, outdir, display=display)
    trainer.note(f"{_versions()}; {_describe(device)}")
    trainer.note(
        f"{config.model} {_size(netG)} (G) and {_size(netD)} (D) on {data.name}, {len(data):,} images"
    )
    return trainer


def choose_device(name: str) -> torch.device:
    """``"auto"``: CUDA where there is a GPU, else the CPU.

    Raises:
        ConfigError: ``"cuda"`` where there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda, but PyTorch sees no GPU here; use device=auto or device=cpu")
    return torch.device(name)


def _choose(what: str, name: str, table: dict[str, T]) -> T:
    if name not in table:
        raise ConfigError(f"unknown {what} {name!r}; there are: {', '.join(table)}")
    return table[name]


def _versions() -> str:
    return f"fastdat {fastdat.__version__}, torch {torch.__version__}, Python {platform.python_version()}"


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads of {os.cpu_count()} cores"


def _size(net: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in net.parameters()):,} parameters"
