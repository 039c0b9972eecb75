"""Training a pair of nets: configuration, presets, loop and run folder."""

from fastdat.training.build import build_nets, build_trainer, load_data
from fastdat.training.config import TrainConfig
from fastdat.training.errors import ConfigError, NonFiniteError, RunFolderError
from fastdat.training.presets import PRESETS, preset
from fastdat.training.trainer import Batches, Trainer

__all__ = [
    "PRESETS",
    "Batches",
    "ConfigError",
    "NonFiniteError",
    "RunFolderError",
    "TrainConfig",
    "Trainer",
    "build_nets",
    "build_trainer",
    "load_data",
    "preset",
]
