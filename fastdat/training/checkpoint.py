"""Checkpoints: one file with all a run needs to go on exactly, written whole or not at all.

They hold plain containers and tensors only and are read with ``weights_only=True``, so that loading one runs no code.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from fastdat.util.errors import RunFolderError

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
    """Write ``state`` to ``path``: beside it first, flushed to the disk, then put in place in one move.

    Raises:
        RunFolderError: it cannot be written, for want of space, say; what was at ``path`` is still there.
        TypeError: something in ``state`` could not be read back safely.
    """
    _refuse_objects(state, "state")
    temporary = path.with_name(f".{path.name}.tmp")
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
            "the same command again to go on from there."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> State:
    """Read a checkpoint onto the CPU.

    Raises:
        RunFolderError: it is missing, damaged, or of another version of this format.
    """
    if not path.is_file():
        raise RunFolderError(f"there is no checkpoint {path}")
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged: {_reason(error)}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise RunFolderError(f"{path} is no checkpoint of this version: format {found!r}, expected {FORMAT}")
    missing = [key for key in KEYS if key not in state]
    if missing:
        raise RunFolderError(f"{path} is incomplete: it has no {', '.join(missing)}")
    return state


def optimizer_settings(optimizer: Optimizer) -> State:
    """What an optimizer was made with: its class, and what each group of parameters is set to."""
    return {
        "class": type(optimizer).__qualname__,
        "groups": [
            {name: _plain(value) for name, value in group.items() if name not in _HOW}
            for group in optimizer.param_groups
        ],
    }


#: Of a group, what changes how a step is computed, and not what.
_HOW = ("params", "fused", "foreach", "capturable", "differentiable")


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value if value is None or type(value) in (bool, int, float, str) else repr(value)


def load_optimizer(optimizer: Optimizer, state: State) -> None:
    """``optimizer.load_state_dict``, after which learning rates that are tensors are the same tensors as before.

    torch would put those of the checkpoint in their place: on the CPU, and not those a captured graph reads.
    """
    before = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, lr in zip(optimizer.param_groups, before, strict=True):
        if isinstance(lr, torch.Tensor):
            group["lr"] = lr.fill_(float(group["lr"]))
        else:
            group["lr"] = float(group["lr"])  # begun on a GPU


def rng_state() -> State:
    """State of torch's global generators; training itself draws from none of them, but a user's nets may."""
    state: State = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: State) -> None:
    """Put back what :func:`rng_state` gave, as far as this machine has such generators."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])


def _refuse_objects(value: Any, where: str) -> None:
    """Allow what ``weights_only=True`` reads back and nothing else: found when it is written, not when it is needed.

    Raises:
        TypeError: naming the place.
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
