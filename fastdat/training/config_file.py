"""Settings in YAML files: the config.yaml of a run, or a file written by hand. They mean the same in any folder."""

from __future__ import annotations

import os
from operator import attrgetter
from pathlib import Path
from typing import Any

from fastdat.training.train_config import TrainConfig
from fastdat.util import plain_yaml
from fastdat.util.errors import ConfigError, RunFolderError
from fastdat.util.run_layout import CONFIG, read_config

#: The settings that name files or folders.
PATHS = ("data", "init_from", "eval.weights")


def with_file(config: TrainConfig, path: str | Path) -> TrainConfig:
    """``config`` with the settings in a file; arguments as in :func:`read_settings`.

    Raises:
        ConfigError: as there, or the file holds an unknown setting or a bad value.
    """
    values = read_settings(path)
    try:
        return config.replace(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings in a file, for :meth:`TrainConfig.replace`. Relative paths in it start at the file's folder.

    Args:
        path: a YAML file, or a run folder, whose config.yaml is then read.

    Raises:
        ConfigError: there is no such file, it is not YAML, or it holds no settings.
    """
    path = Path(path)
    if path.is_dir():
        path = path / CONFIG
    try:
        values = plain_yaml.loads(path.read_text(encoding="utf-8"), plain_yaml.NUMBER)
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no file {path}. Give a YAML file of settings, or a run folder"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except plain_yaml.PlainYamlError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(
            f"{path} must hold settings as lines of key: value, for example lr: 1e-4; it holds "
            f"{'nothing' if values is None else f'a {type(values).__name__}'}"
        )
    for key in PATHS:
        section, _, name = key.rpartition(".")
        for holder, entry in ((values, key), (values.get(section), name)):
            if isinstance(holder, dict) and isinstance(holder.get(entry), str):
                holder[entry] = _absolute(holder[entry], path.parent)
    return values


def recorded_config(run: Path) -> TrainConfig:
    """The settings in a run's config.yaml.

    Raises:
        RunFolderError: there is no such file, it is damaged, or it holds other settings than this version has.
    """
    values = read_config(run)
    try:
        return TrainConfig.from_dict(values)
    except ConfigError as error:
        raise RunFolderError(
            f"{run / CONFIG} was written by another version of fastdat, or changed by hand: {error}"
        ) from error


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """``config`` with relative paths taken from the present folder, so that config.yaml can be used in any folder."""
    values = {key: attrgetter(key)(config) for key in PATHS}
    return config.replace(
        {key: _absolute(value, Path()) for key, value in values.items() if value is not None}
    )


def _absolute(path: str, folder: Path) -> str:
    return os.path.abspath(folder / os.path.expanduser(path))
