"""Checkpoint files: everything that an exact resume needs, in one file, written whole or not at all.

A checkpoint holds only plain containers and tensors and is read with ``weights_only=True``: loading it runs no code.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from fastdat.util.errors import RunFolderError
from fastdat.util.files import temporary_of

State = dict[str, Any]

FORMAT = 1
KEYS = (
    "step",
    "config",
    "netG",
    "netD",
    "optG",
    "optD",
    "optimizers",
    "data",
    "ema",
    "rng",
    "seconds",
    "attempt",
    "meters",
    "best",
    "unscored",
)


def save(path: Path, state: State) -> None:
    """Write ``state`` to a file beside ``path``, flush it to the disk, then move it to ``path`` in one step.

    Raises:
        RunFolderError: it cannot be written, for example on a full disk; the old file at ``path`` is intact.
        TypeError: ``state`` contains something that could not be read back safely.
    """
    _refuse_objects(state, "state")
    temporary = temporary_of(path)
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
        kept = f"The one before it is intact: {path}." if path.exists() else "There is none before it."
        raise RunFolderError(
            f"cannot write a checkpoint to {path.parent}: {_reason(error)}. {kept} Make room, then run "
            "the same command again to resume."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> State:
    """Read a checkpoint onto the CPU.

    Raises:
        RunFolderError: it is missing, damaged, or in another version of the format.
    """
    if not path.is_file():
        raise RunFolderError(f"there is no checkpoint {path}")
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged: {_reason(error)}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise RunFolderError(
            f"{path} is not a checkpoint of this version: format {found!r}, expected {FORMAT}"
        )
    missing = [key for key in KEYS if key not in state]
    if missing:
        raise RunFolderError(f"{path} is incomplete: it has no {', '.join(missing)}")
    return state


def optimizer_settings(optimizer: Optimizer) -> State:
    """What identifies an optimizer: its class, and the settings of each group of parameters."""
    return {
        "class": type(optimizer).__qualname__,
        "groups": [
            {name: _plain(value) for name, value in group.items() if name not in _IMPLEMENTATION}
            for group in optimizer.param_groups
        ],
    }


#: Settings of a group that change how a step is computed, but not its result.
_IMPLEMENTATION = ("params", "fused", "foreach", "capturable", "differentiable")


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value if value is None or type(value) in (bool, int, float, str) else repr(value)


def load_optimizer(optimizer: Optimizer, state: State) -> None:
    """``optimizer.load_state_dict``, but learning rates that are tensors stay the same tensors, with new values.

    torch would replace them by the checkpoint's tensors, which are on the CPU and which no captured graph reads.
    """
    before = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, lr in zip(optimizer.param_groups, before, strict=True):
        if isinstance(lr, torch.Tensor):
            group["lr"] = lr.fill_(float(group["lr"]))
        else:
            group["lr"] = float(group["lr"])  # a tensor, if the run was begun on a GPU


def rng_state() -> State:
    """State of torch's global generators. Training itself never draws from them, but a user's nets may."""
    state: State = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: State) -> None:
    """Restore what :func:`rng_state` returned, as far as this machine has the same generators."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])


def _refuse_objects(value: Any, where: str) -> None:
    """Allow only what ``weights_only=True`` reads back, so that an error comes when writing, not when resuming.

    Raises:
        TypeError: it names the place of the first other object.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_objects(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for i, item in enumerate(value):
            _refuse_objects(item, f"{where}[{i}]")
    elif value is not None and type(value) not in (bool, int, float, str, torch.Tensor):
        raise TypeError(
            f"a checkpoint can hold tensors, numbers, text and containers; {where} is a {type(value).__name__}"
        )


def _reason(error: Exception) -> str:
    cause = error if isinstance(error, OSError) else error.__context__
    if isinstance(cause, OSError):
        return cause.strerror or str(cause)
    return str(error).partition("\n")[0][:200] or type(error).__name__
