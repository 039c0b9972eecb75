"""Training a pair of nets: configuration, presets, loop, checkpoints and run folder."""

from fastdat.training.batches import Batches
from fastdat.training.build import build_evaluator, build_trainer, load_data
from fastdat.training.launch import joined
from fastdat.training.models import build_nets
from fastdat.training.presets import PRESETS, preset
from fastdat.training.stop import StoppedError
from fastdat.training.table3_config import table3_config
from fastdat.training.train_config import TrainConfig
from fastdat.training.trainer import Trainer
from fastdat.util.errors import ConfigError, NonFiniteError, RunFolderError

__all__ = [
    "PRESETS",
    "Batches",
    "ConfigError",
    "NonFiniteError",
    "RunFolderError",
    "StoppedError",
    "TrainConfig",
    "Trainer",
    "build_evaluator",
    "build_nets",
    "build_trainer",
    "joined",
    "load_data",
    "preset",
    "table3_config",
]
