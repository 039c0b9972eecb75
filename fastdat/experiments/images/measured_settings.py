"""Whether a run of an experiment was scored and measured with the settings of now.

A run may be resumed with other settings of its scores and of its monitor, since they change nothing that is trained. In
an experiment they would change what the tables compare: so the first call notes them in the run folder, and later ones
with other settings are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastdat.training.config_file import recorded_config
from fastdat.training.train_config import TrainConfig
from fastdat.util import plain_json
from fastdat.util.errors import ConfigError, RunFolderError
from fastdat.util.files import write_atomically
from fastdat.util.run_layout import CONFIG, STATS

MEASURED = "measured.json"
"""The file in a run folder that holds the settings of its scores, of its monitor and of the experiment's callbacks."""
_PLACES = ("weights", "batch_size")
"""Settings of ``eval`` that change no score beyond rounding."""


def note_measured(run: Path, config: TrainConfig, own: Mapping[str, Any]) -> None:
    """Write :data:`MEASURED` of a run that begins; nothing if it is there.

    Args:
        run: the run folder, which exists.
        config: of the run.
        own: settings of the experiment's callbacks.
    """
    if not (run / MEASURED).exists():
        write_atomically(run / MEASURED, (json.dumps(_settings(config, own), indent=1) + "\n").encode())


def check_measured(run: Path, config: TrainConfig, own: Mapping[str, Any]) -> None:
    """Refuse a run that was measured with other settings; arguments as in :func:`note_measured`.

    Nothing is refused where no run is. Of a run without :data:`MEASURED`, config.yaml says how it was scored; nothing
    says how callbacks measured it.

    Raises:
        ConfigError: other settings.
        RunFolderError: the file is damaged.
    """
    if not (run / CONFIG).exists():
        return
    now = _settings(config, own)
    if (run / MEASURED).exists():
        then = _read(run / MEASURED)
    else:
        measured = own and (run / STATS).exists() and (run / STATS).stat().st_size
        then = _settings(recorded_config(run), {} if measured else own)
    differing = differences(then, now)
    if differing:
        raise ConfigError(
            f"{run} holds a run that was measured with other settings: {differing}. Its numbers cannot "
            "stand beside new ones: give another --outdir, or remove it to train it again"
        )


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What two mappings of settings differ in, in words: ``"lr 0.1 then, 0.2 now, steps ..."``; empty if in nothing."""
    return ", ".join(
        f"{key} {then.get(key, 'unknown')} then, {now.get(key, 'none')} now"
        for key in dict.fromkeys([*now, *then])
        if then.get(key) != now.get(key)
    )


def _settings(config: TrainConfig, own: Mapping[str, Any]) -> dict[str, Any]:
    """All settings by their names, in types that JSON knows."""
    sections = config.to_dict()
    flat = {f"eval.{key}": value for key, value in sections["eval"].items() if key not in _PLACES}
    # Where the monitor is off, its other settings have no effect.
    monitor = sections["monitor"] if config.monitor.every else {"every": None}
    flat |= {f"monitor.{key}": value for key, value in monitor.items()}
    found: dict[str, Any] = json.loads(json.dumps({**flat, **own}))
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        found = plain_json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{file} is damaged: {error}. Remove the run to train it again") from error
    if not isinstance(found, dict):
        raise RunFolderError(f"{file} is damaged: it holds no settings. Remove the run to train it again")
    return found
