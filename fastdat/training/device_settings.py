"""Settings that may be "auto": what suits the device that a run trains on, or what the run was begun with.

Nothing is "auto" in a run's config.yaml and in its checkpoints. So a run that was begun on a GPU in bf16 goes on in
bf16 on a CPU, with the same command.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastdat.data.mixture import MIXTURES
from fastdat.regularizers.finite_difference import FiniteDifference
from fastdat.regularizers.term_registry import TERMS
from fastdat.training.config_file import recorded_config
from fastdat.training.snapshots import Snapshots
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import ConfigError, RunFolderError
from fastdat.util.free_settings import FREE
from fastdat.util.run_layout import CONFIG

AUTO = "auto"
AUTOMATIC = ("precision", "channels_last", "cudnn_benchmark")
"""The settings that a device chooses where they are :data:`AUTO`. The setting ``device`` is none of them: config.yaml
keeps its "auto", since a run may go on on another one."""

_PLAIN: Mapping[str, Any] = {"precision": "fp32", "channels_last": False, "cudnn_benchmark": False}


@dataclass(frozen=True)
class Abilities:
    """What a device has that settings depend on.

    Args:
        cuda: it is a GPU.
        bf16: it computes bf16 in hardware.
    """

    cuda: bool = False
    bf16: bool = False


def abilities(device: torch.device) -> Abilities:
    """What ``device`` has; a GPU that only emulates bf16, which is slow, has none."""
    cuda = device.type == "cuda"
    return Abilities(cuda, cuda and torch.cuda.is_bf16_supported(including_emulation=False))


def choice(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """What the settings :data:`AUTOMATIC` are on ``device`` where they are "auto".

    On a GPU bf16, channels_last and cuDNN's fastest algorithms. Nets of the user's own stay in their memory format.
    Everywhere else, and for points in a plane, whose nets have no convolutions: fp32, as PyTorch lays tensors out.
    """
    found = abilities(device)
    if not found.cuda or config.dataset in MIXTURES:
        return dict(_PLAIN)
    half = found.bf16 and not finer_than_bf16(config)
    return {
        "precision": "bf16" if half else "fp32",
        "channels_last": config.model is not None,
        "cudnn_benchmark": True,
    }


def needing_fp32(config: TrainConfig) -> list[str]:
    """The names of the regularizers that a step in bf16 refuses."""
    return [term.name for term in config.regularizers if TERMS[term.name].in_full_precision]


def finer_than_bf16(config: TrainConfig) -> list[str]:
    """The names of the regularizers that compare D at samples so close that bf16 rounds much of the difference away.

    They are those of :func:`needing_fp32`, and finite differences, whose usual step is about the distance of two
    numbers near 1.
    """
    differences = [t.name for t in config.regularizers if issubclass(TERMS[t.name], FiniteDifference)]
    return needing_fp32(config) + differences


def is_auto(config: TrainConfig) -> bool:
    """Whether the device still has something to choose."""
    return any(getattr(config, key) == AUTO for key in AUTOMATIC)


def as_begun(config: TrainConfig, begun: TrainConfig) -> TrainConfig:
    """``config`` with the values of ``begun`` for what is "auto" in it."""
    return config.replace({key: getattr(begun, key) for key in AUTOMATIC if getattr(config, key) == AUTO})


def settled(
    config: TrainConfig,
    device: torch.device,
    outdir: str | Path | None = None,
    resume_from: str | Path | None = None,
) -> tuple[TrainConfig, list[str]]:
    """``config`` without "auto".

    A run that goes on from a checkpoint keeps what it was begun with. Only ``cudnn_benchmark``, which changes nothing
    that is trained beyond rounding, is this device's again.

    Args:
        config: of the run.
        device: where it trains.
        outdir: its run folder; None: a new run.
        resume_from: as in :class:`fastdat.training.Trainer`.

    Returns:
        The settings, and what was chosen, in lines for the log; none if nothing was "auto".

    Raises:
        ConfigError: a regularizer needs fp32, and the precision is bf16.
        RunFolderError: config.yaml and the checkpoint of the run are damaged.
    """
    remarks = []
    if is_auto(config):
        chosen = choice(config, device)
        begun = None if outdir is None else _begun(Path(outdir), config, resume_from)
        automatic = {key: value for key, value in chosen.items() if getattr(config, key) == AUTO}
        kept = {} if begun is None else {k: getattr(begun, k) for k in automatic if k not in FREE}
        kept = {key: value for key, value in kept.items() if value not in (AUTO, automatic[key])}
        config = config.replace(automatic | kept)
        remarks = _remarks(config, automatic, kept, device)
    terms = needing_fp32(config)
    if config.precision == "bf16" and terms:
        raise ConfigError(
            f"precision=bf16, but the regularizer {terms[0]} compares D at samples that are closer than bf16 can tell "
            "apart: set precision=fp32, or auto"
        )
    return config, remarks


def _begun(run: Path, config: TrainConfig, resume_from: str | Path | None) -> TrainConfig | None:
    """The settings of the run in ``run``; None where there is none, or none of its work is left to go on from."""
    files = Snapshots(run, config.checkpoints)
    try:
        if not (run / CONFIG).exists() or (resume_from is None and not files.files()):
            return None
    except OSError:  # the run folder says what is wrong with it
        return None
    try:
        return recorded_config(run)
    except RunFolderError:  # a damaged file is written anew from the settings of the checkpoint
        found = files.to_resume(resume_from)
        return None if found is None else TrainConfig.from_dict(found.state["config"])


def _remarks(
    config: TrainConfig, automatic: Mapping[str, Any], kept: Mapping[str, Any], device: torch.device
) -> list[str]:
    """What was chosen and why, in lines."""
    found = abilities(device)
    where = "CUDA" if found.cuda else "the CPU"
    here = {key: value for key, value in automatic.items() if key not in kept}
    remarks = []
    if here:
        why, terms = "", finer_than_bf16(config)
        if found.cuda and here.get("precision") == "fp32":
            cause = "this GPU does not compute bf16"
            if terms:
                cause = f"bf16 is too coarse for {terms[0]}"
            why = f"; fp32 because {cause}"
        remarks.append(f"{_words(here)} (auto on {where}{why})")
    if kept:
        others = {key: automatic[key] for key in kept}
        remarks.append(f"{_words(kept)}, as the run was begun (auto on {where} would be {_words(others)})")
    return remarks


def _words(settings: Mapping[str, Any]) -> str:
    """``precision=bf16, channels_last=true``, as ``--set`` takes them."""
    return ", ".join(f"{key}={str(value).lower()}" for key, value in settings.items())


@contextmanager
def cudnn_tuned(config: TrainConfig) -> Iterator[None]:
    """Within it ``torch.backends.cudnn.benchmark`` is on if ``config.cudnn_benchmark`` is true; afterwards it is what
    it was. No other flag of cuDNN is touched."""
    before = torch.backends.cudnn.benchmark
    if config.cudnn_benchmark is True:
        torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
