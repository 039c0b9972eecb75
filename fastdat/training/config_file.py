"""Settings in YAML files: the config.yaml of a run, or a file written by hand. They mean the same in any folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from fastdat.metrics.eval_config import EvalConfig
from fastdat.metrics.extractors import imports_code
from fastdat.training.train_config import TrainConfig
from fastdat.util import plain_yaml
from fastdat.util.errors import ConfigError, RunFolderError
from fastdat.util.run_layout import CONFIG, read_config
from fastdat.util.settings import flat_settings

#: The settings that name files or folders.
PATHS = ("data", "init_from", "eval.weights")

#: The setting that may name code.
EXTRACTOR = "eval.extractor"


def with_file(config: TrainConfig, path: str | Path, given: Mapping[str, Any] | None = None) -> TrainConfig:
    """``config`` with the settings in a file.

    Args:
        config: what the file changes.
        path: as in :func:`read_settings`.
        given: settings that will replace those of the file.

    Raises:
        ConfigError: as there; the file holds an unknown setting or a bad value; or it names code to import.
    """
    values = read_settings(path)
    try:
        changed = config.replace(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if changed.eval.extractor != config.eval.extractor and not gives_extractor(given or {}):
        refuse_code(changed.eval.extractor, path, f"--set {EXTRACTOR}={changed.eval.extractor}")
    return changed


def gives_extractor(settings: Mapping[str, Any]) -> bool:
    """Whether ``settings``, as :meth:`TrainConfig.replace` takes them, set the extractor of the scores."""
    return EXTRACTOR in flat_settings(settings) or isinstance(settings.get("eval"), EvalConfig)


def refuse_code(extractor: str, path: str | Path, instead: str) -> None:
    """Refuse to import code because a file names it: it may be somebody else's.

    Args:
        extractor: the file's ``eval.extractor``.
        path: the file.
        instead: what a user gives who trusts that code.

    Raises:
        ConfigError: ``extractor`` is ``"package.module:factory"``.
    """
    if imports_code(extractor):
        raise ConfigError(
            f"{path} names code, {extractor}, and code that a file names is not imported. If you trust it, give "
            f"{instead} yourself"
        )


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
