"""Whether a run may be resumed with the settings, optimizers and images that are given now."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastdat.training.class_names import changed_classes
from fastdat.training.device_settings import as_begun
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import ConfigError
from fastdat.util.free_settings import FREE


def check_resumable(
    path: Path, begun: Mapping[str, Any], now: TrainConfig, done: int, extend: bool = False
) -> list[str]:
    """Compare the settings of a run's checkpoint with those given now.

    Args:
        path: the run folder, for messages.
        begun: the settings in the checkpoint.
        now: the settings given now; what is "auto" in them is what it was then.
        done: G steps of the checkpoint.
        extend: other ``steps`` may change the rates that ``lr_decay`` gives, and what ``cosine`` moves.

    Returns:
        Remarks for the log on settings that differ.

    Raises:
        ConfigError: a setting that changes what is trained differs, or the run is longer than ``now.steps``.
    """
    then = TrainConfig.from_dict(begun)
    listed = changed_training(then, now)
    if listed:
        raise ConfigError(
            f"{path} holds a run with other settings: {listed}. Give the same settings to resume it, or another "
            "--outdir for a new run."
        )
    if done > now.steps:
        raise ConfigError(
            f"{path} is already {done} steps long; got steps={now.steps}. Give steps={done} or "
            "more, or go back to an earlier checkpoint with --from"
        )
    remarks = other_settings(then, now)
    if now.steps != then.steps and now.cosine.moves and now.cosine.steps is None:
        if not extend:
            raise ConfigError(
                f"{path} moves settings along a cosine over {then.steps} steps; got steps={now.steps}, over which they "
                "would move more slowly or faster from now on. Give --extend (extend=True in Python) to go on so, or "
                f"steps={then.steps} to keep the schedule."
            )
        remarks.append(f"what the cosine moves now moves over {now.steps} steps, no longer {then.steps}")
    if now.lr_decay == "linear" and now.steps != then.steps:
        rates = [1 - done / config.steps for config in (then, now)]
        changed = f"the learning rates after step {done} are {rates[1]:.4g} of the initial ones"
        if not extend:
            raise ConfigError(
                f"{path} decays its learning rates to zero over {then.steps} steps; got steps={now.steps}. After step "
                f"{done} they would change from {rates[0]:.4g} to {rates[1]:.4g} of the initial ones. Give --extend "
                f"(extend=True in Python) to go on so, or steps={then.steps} to keep the schedule."
            )
        remarks.append(f"{changed}, no longer {rates[0]:.4g}")
    return remarks


def changed_training(then: TrainConfig, now: TrainConfig) -> str:
    """How the settings differ that change what is trained, in words; empty if they are equal."""
    before, after = then.to_dict(), as_begun(now, then).to_dict()
    if then.init_from is not None and now.init_from is not None:
        del after["init_from"]  # only where it is may differ: the run no longer needs it
    return ", ".join(
        _difference(key, before[key], after[key])
        for key in after
        if before[key] != after[key] and key not in FREE
    )


def other_settings(then: TrainConfig, now: TrainConfig) -> list[str]:
    """Remarks for the log on settings that differ from those the run was begun with; the place of data is none."""
    before, after = then.to_dict(), as_begun(now, then).to_dict()
    return [
        _difference(key, before[key], after[key])
        for key in after
        if before[key] != after[key] and key != "data"
    ]


def check_same_classes(path: Path, state: Mapping[str, Any], now: Sequence[str]) -> None:
    """Compare the names of classes, before the settings, which tell only how many there are.

    Args:
        path: the run folder, for messages.
        state: its checkpoint.
        now: the names now; empty if there are none.

    Raises:
        ConfigError: they differ from those of the checkpoint.
    """
    changed = changed_classes(state["class_names"], now)
    if changed:
        raise ConfigError(
            f"{path} holds a run on other classes: {changed}. Give the same data to resume it, or another --outdir for "
            "a new run."
        )


def check_same_parts(
    path: Path, state: Mapping[str, Any], optimizers: Mapping[str, Any], data: str | None
) -> None:
    """Compare what is not in the configuration: optimizers that the user provides, and the images themselves.

    Args:
        path: the run folder, for messages.
        state: its checkpoint.
        optimizers: name -> settings, from :func:`fastdat.training.checkpoint.optimizer_settings`.
        data: fingerprint of the images; None for a loader, which has none.

    Raises:
        ConfigError: they differ from those of the checkpoint.
    """
    for name, now in optimizers.items():
        differing = _other_settings(state["optimizers"][name], now)
        if differing:
            raise ConfigError(
                f"{path} holds a run with another {name}: {differing}. Give the same optimizer to resume it, or "
                "another outdir for a new run."
            )
    if data is not None and state["data"] is not None and data != state["data"]:
        raise ConfigError(
            f"{path} holds a run on other images: their fingerprint was {state['data'][:16]} then, and is {data[:16]} "
            "now. Give the same data to resume it, or another --outdir for a new run."
        )


def _other_settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs, in words; empty if nothing does."""
    if then["class"] != now["class"]:
        return f"{then['class']} then, {now['class']} now"
    if len(then["groups"]) != len(now["groups"]):
        return f"{len(then['groups'])} groups of parameters then, {len(now['groups'])} now"
    return ", ".join(
        f"{name} {before[name]} then, {after[name]} now"
        for before, after in zip(then["groups"], now["groups"], strict=True)
        for name in after
        if name in before and not _close(before[name], after[name])
    )


def _close(a: Any, b: Any) -> bool:
    """Equal up to the precision of float32, which a rate on a GPU has."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_close, a, b))
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (a, b))
    return math.isclose(a, b, rel_tol=1e-6) if numbers else bool(a == b)


def _difference(key: str, before: Any, after: Any) -> str:
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        inner = [
            f"{key}.{name} {before[name]} then, {after[name]} now"
            for name in after
            if before[name] != after[name]
        ]
        return ", ".join(inner)
    return f"{key} {before} then, {after} now"
