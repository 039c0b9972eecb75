"""Whether a run may go on under the settings it is given now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastdat.settings import ConfigError
from fastdat.training.config import TrainConfig

#: Settings that may differ from those a run was begun with: they change what is shown and kept, or where it is made.
FREE = frozenset(
    {
        "data",
        "steps",
        "device",
        "compile",
        "microbatch",
        "log_every",
        "sample_every",
        "samples",
        "tensorboard",
    }
    | {"checkpoint_every", "on_nan", "nan_retries", "eval"}
)


def check_resumable(path: Path, begun: Mapping[str, Any], now: TrainConfig, done: int) -> list[str]:
    """Compare the settings a run was begun with and those given now.

    Returns:
        Remarks worth telling on free settings that differ.

    Raises:
        ConfigError: a setting that changes what is trained differs, or the run is past ``now.steps``.
    """
    before, after = TrainConfig.from_dict(begun).to_dict(), now.to_dict()
    different = [key for key in after if before[key] != after[key]]
    bound = [key for key in different if key not in FREE]
    if bound:
        listed = ", ".join(_difference(key, before[key], after[key]) for key in bound)
        raise ConfigError(
            f"{path} holds a run with other settings: {listed}. Give the same settings to go on with it, or another "
            "--outdir for a new run."
        )
    if done > now.steps:
        raise ConfigError(f"{path} is {done} steps long already; got steps={now.steps}")
    return [_difference(key, before[key], after[key]) for key in different if key != "data"]


def _difference(key: str, before: Any, after: Any) -> str:
    if isinstance(before, dict):
        inner = [
            f"{key}.{name} {before[name]} then, {after[name]} now"
            for name in after
            if before[name] != after[name]
        ]
        return ", ".join(inner)
    return f"{key} {before} then, {after} now"
