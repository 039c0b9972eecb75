"""Checkpoint files: everything that an exact resume needs, in one file, written whole or not at all.

A checkpoint holds only plain containers and tensors and is read with ``weights_only=True``: loading it runs no code. It
ends with a digest of its bytes and is used only if they are unchanged.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch.optim import Optimizer

from fastdat.data import torch_file
from fastdat.data.pickle_machine import HIGHEST_INTEGER, LOWEST_INTEGER
from fastdat.training import checkpoint_structure, seal
from fastdat.training.checkpoint_structure import FORMAT
from fastdat.training.checkpoint_structure import State as State
from fastdat.util.errors import ConfigError, RunFolderError
from fastdat.util.files import temporary_of


class DamagedCheckpointError(RunFolderError):
    """The bytes of a checkpoint are not those that were written, or the disk does not give them back."""


def save(path: Path, state: State) -> None:
    """Write ``state`` to a file beside ``path``, flush it to the disk, then move it to ``path`` in one step.

    Raises:
        RunFolderError: it cannot be written, for example on a full disk; the old file at ``path`` is intact.
        TypeError: ``state`` contains something that could not be read back safely; the old file at ``path`` is intact.
    """
    _refuse_objects(state, "state")
    temporary = temporary_of(path)
    try:
        temporary.unlink(missing_ok=True)  # after a kill it may be a second name of another checkpoint
        with temporary.open("w+b") as file:
            writer = seal.SealingWriter(file)
            torch.save({"format": FORMAT, **state}, cast(BinaryIO, writer))
            writer.seal()
            file.flush()
            os.fsync(file.fileno())
            _refuse_unreadable(file)
        os.replace(temporary, path)
        _flush_names(path.parent)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
        if isinstance(error.__context__, KeyboardInterrupt):  # and what a signal's handler raised
            raise error.__context__ from None
        kept = f"The one before it is intact: {path}." if path.exists() else "There is none before it."
        raise RunFolderError(
            f"cannot write a checkpoint to {path.parent}: {_reason(error)}. {kept} Make room (or "
            "give the permission), then run the same command again to resume."
        ) from error
    finally:
        with suppress(OSError):  # what stopped the write may stop this too; the next write removes it
            temporary.unlink(missing_ok=True)


def _flush_names(folder: Path) -> None:
    """Wait until the disk has the names of the files in ``folder``: a power cut then does not bring old ones back."""
    with suppress(OSError):  # some network file systems cannot, and the file itself is on the disk
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def load(path: Path) -> State:
    """Read a checkpoint onto the CPU, once its bytes are found to be those that were written.

    Raises:
        DamagedCheckpointError: it is not as it was written: a bit has changed, a part is missing, the disk fails.
        RunFolderError: it is missing, no checkpoint, or in another version of the format.

    Nothing of such a file is used, and nothing in it was executed.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise RunFolderError(f"there is no checkpoint {path}.") from error
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror or error}") from error
    with file:
        try:
            whole = seal.is_whole(file)
            if whole:
                torch_file.check(file)
            state: State = torch.load(file, map_location="cpu", weights_only=True) if whole else {}
        except OSError as error:
            raise DamagedCheckpointError(
                f"{path} cannot be read: {error.strerror or error}. It was not used."
            ) from error
        except Exception as error:  # what is raised depends on the file's content
            raise RunFolderError(_unreadable(path, error)) from error
        if not whole:
            raise _unverified(path, file)
    problem = checkpoint_structure.problem(state)
    if problem is not None:
        raise RunFolderError(f"{path} is no checkpoint: {problem}. It was not used.")
    return state


def _unverified(path: Path, file: BinaryIO) -> RunFolderError:
    """The error about a file without the digest of its bytes."""
    if seal.is_sealed(file):
        return DamagedCheckpointError(
            f"{path} is damaged: its bytes are not those that were written (SHA-256). It was not used."
        )
    try:
        content = torch_file.check(file)
    except torch_file.TorchFileError as error:
        content = None
        if error.foreign is not None:
            return RunFolderError(_refused(path, error.foreign))
    if isinstance(content, dict) and content.get("format") == 1:
        return RunFolderError(
            f"{path} was written by an earlier version of fastdat, without a checksum (format 1); this version reads "
            f"{FORMAT}. It was not used. Go on with that version."
        )
    return DamagedCheckpointError(
        f"{path} is damaged, or was not written by fastdat: it does not end with the SHA-256 of its bytes, as every "
        "checkpoint does. It was not used. If you changed it yourself, write it with fastdat.training.checkpoint.save."
    )


def _unreadable(path: Path, error: Exception) -> str:
    """The message about a file that has its digest, but cannot be read as a checkpoint."""
    if isinstance(error, torch_file.TorchFileError):
        if error.foreign is not None:
            return _refused(path, error.foreign)
        return f"{path} is no checkpoint: {error}. It was not used."
    # Not torch's own text, which advises to allow the execution of code.
    return f"{path} is no checkpoint: its content cannot be read ({type(error).__name__}). It was not used."


def _refused(path: Path, foreign: str) -> str:
    return (
        f"{path} was refused: it refers to {foreign}, and a checkpoint holds only tensors, numbers and "
        "text. Nothing was executed. Use only files whose origin you know."
    )


def optimizer_settings(optimizer: Optimizer) -> State:
    """What identifies an optimizer: its class, and the settings of each group of parameters."""
    return {
        "class": type(optimizer).__qualname__,
        "groups": [
            {name: _plain(value) for name, value in group.items() if name not in ("params", *_IMPLEMENTATION)}
            for group in optimizer.param_groups
        ],
    }


#: Settings of a group that change how a step is computed, but not its result.
_IMPLEMENTATION = ("fused", "foreach", "capturable", "differentiable")


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value if value is None or type(value) in (bool, int, float, str) else repr(value)


def load_optimizer(optimizer: Optimizer, state: State) -> None:
    """``optimizer.load_state_dict``, but in place: tensors that there are stay the same tensors, with new values.

    torch would put the checkpoint's tensors in their place, which no captured graph reads. How a step is computed
    (fused, capturable, ...) stays as it is in ``optimizer``, too: what the checkpoint says may not run on this device.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    before = {parameter: dict(entries) for parameter, entries in optimizer.state.items()}
    groups = [
        saved | {name: group[name] for name in _IMPLEMENTATION if name in group}
        for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for group, lr in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(lr, torch.Tensor):
            group["lr"] = lr.fill_(float(group["lr"]))
        else:
            group["lr"] = float(group["lr"])  # a tensor, if the run was begun on a GPU
    for parameter, entries in optimizer.state.items():
        for name, held in before.get(parameter, {}).items():
            if isinstance(held, torch.Tensor) and isinstance(entries.get(name), torch.Tensor):
                entries[name] = held.copy_(entries[name])


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


def check_savable(state: State) -> None:
    """Refuse what could not be written, before training begins.

    Raises:
        ConfigError: ``state`` contains something that could not be read back safely.
    """
    try:
        _refuse_objects(state, "state")
    except TypeError as error:
        raise ConfigError(
            f"{error}. Convert it with float(...) or int(...), or keep it in a tensor"
        ) from error


def _refuse_unreadable(file: BinaryIO) -> None:
    """Check a written file as :func:`load` will: it must not replace an older one otherwise.

    Raises:
        TypeError: it could not be read back.
    """
    try:
        torch_file.check(file)
    except torch_file.TorchFileError as error:
        raise TypeError(f"a checkpoint was not kept because it could not be read back: {error}") from error


#: Containers that the file has for a tensor: a call, its arguments, the reference to its storage, and its key.
_TENSOR_LEVELS = 4


def _refuse_objects(value: Any, where: str, levels: int = 0) -> None:
    """Allow only what :func:`load` reads back, so that an error comes when writing, not when resuming.

    Raises:
        TypeError: it names the place of the first other object.
    """
    is_tensor, is_container = type(value) is torch.Tensor, type(value) in (dict, OrderedDict, list, tuple)
    if levels + is_container + is_tensor * _TENSOR_LEVELS > torch_file.MOST_LEVELS:
        raise TypeError(f"{where} has more than {torch_file.MOST_LEVELS} containers in each other")
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            if type(key) not in _PLAIN or not _fits(key):
                raise TypeError(
                    f"{where} has {_described(key)} as a key; a checkpoint can hold text and numbers there"
                )
            _refuse_objects(item, f"{where}[{key!r}]", levels + 1)
    elif is_container:
        for i, item in enumerate(value):
            _refuse_objects(item, f"{where}[{i}]", levels + 1)
    elif is_tensor:
        if not checkpoint_structure.is_stored(value):
            raise TypeError(
                f"{where} is a tensor without numbers of its own: sparse, or one number repeated as often as its "
                "shape says"
            )
    elif type(value) not in _PLAIN or not _fits(value):
        raise TypeError(
            f"a checkpoint can hold tensors, numbers, text and containers; {where} is {_described(value)}"
        )


_PLAIN = (bool, int, float, str, type(None))


def _fits(value: Any) -> bool:
    """Whether the value is no integer beyond those that torch reads."""
    return type(value) is not int or LOWEST_INTEGER <= value <= HIGHEST_INTEGER


def _described(value: Any) -> str:
    if type(value) is int:
        return f"a number of {value.bit_length()} bits"
    return f"a {type(value).__name__}"


def _reason(error: Exception) -> str:
    cause = error if isinstance(error, OSError) else error.__context__
    if isinstance(cause, OSError):
        return cause.strerror or str(cause)
    return str(error).partition("\n")[0][:200] or type(error).__name__
