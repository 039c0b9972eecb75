"""The nets of a run, built from its settings and loaded from one of its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fastdat.training import checkpoint
from fastdat.training.build import choose_device
from fastdat.training.config_file import recorded_config
from fastdat.training.models import build_nets
from fastdat.training.resume import changed_training
from fastdat.training.snapshots import Snapshots
from fastdat.training.train_config import TrainConfig
from fastdat.util.errors import RunFolderError
from fastdat.util.run_layout import CONFIG


@dataclass(frozen=True)
class SavedNets:
    """Nets in evaluation mode on the CPU, and their origin.

    Args:
        G, D: the nets.
        weights: what G holds: ``"G"``, or ``"ema"`` for the running average.
        config: settings of the run.
        step: G steps that the nets were trained for.
        class_names: of a conditional model, by label; empty where they are unknown.
        settings_file: where ``config`` was read.
    """

    G: nn.Module
    D: nn.Module
    weights: str
    config: TrainConfig
    step: int
    class_names: tuple[str, ...]
    settings_file: Path


def load(
    run: str | Path, checkpoint: str = "latest", *, ema: bool = True, device: str = "cpu"
) -> tuple[nn.Module, nn.Module]:
    """The generator and the discriminator of a run that trained one of fastdat's models, as ``G, D``.

    Both are plain modules in evaluation mode, ready to be used or trained further. G maps z (N, nz), and labels (N,)
    for a conditional model, to images in [-1, 1]; D maps images, and labels, to raw logits.

    Args:
        run: a run folder, or a checkpoint file.
        checkpoint: of a run folder: ``"latest"``, ``"best"``, ``"step-000500"`` or the path of a checkpoint.
        ema: load the running average of G if the run has one.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.

    Raises:
        RunFolderError: there is no run or no such checkpoint, it is damaged or of another run, or the nets are not
            fastdat's.
        ConfigError: no such device.
    """
    where = choose_device(device)
    nets = read_nets(Path(run), checkpoint, ema=ema)
    return nets.G.to(where), nets.D.to(where)


def read_nets(run: Path, which: str, *, ema: bool) -> SavedNets:
    """The nets of a run folder or of a checkpoint file; arguments and errors as in :func:`load`."""
    config, state, path = _of_file(run, which) if run.is_file() else _of_run(run, which)
    if config.model is None:
        raise RunFolderError(
            f"{run} trained nets of your own, which only you can build: load into them what torch.load({str(path)!r}, "
            'weights_only=True) holds under "netG", or "ema", and "netD"'
        )
    netG, netD = build_nets(config)
    averaged = ema and state["ema"] is not None
    try:
        netG.load_state_dict(state["ema" if averaged else "netG"])
        netD.load_state_dict(state["netD"])
    except RuntimeError as error:
        raise RunFolderError(
            f"{path} holds the weights of other nets than its settings say: {error}"
        ) from error
    weights, names = "ema" if averaged else "G", tuple(state["class_names"])
    source = path if run.is_file() else run / CONFIG
    return SavedNets(netG.eval(), netD.eval(), weights, config, state["step"], names, source)


def _of_file(path: Path, which: str) -> tuple[TrainConfig, checkpoint.State, Path]:
    if which != "latest":
        raise RunFolderError(f"{path} is a checkpoint itself; to take {which}, give its run folder")
    state = checkpoint.load(path)
    return TrainConfig.from_dict(state["config"]), state, path


def _of_run(run: Path, which: str) -> tuple[TrainConfig, checkpoint.State, Path]:
    recorded = recorded_config(run)
    snapshots = Snapshots(run, recorded.checkpoints)
    path = snapshots.path_of(which)
    if which == "best" and not path.is_file():
        raise RunFolderError(f"{run} has no best checkpoint: it was trained without eval.every. Take latest")
    try:
        state = checkpoint.load(path)
    except RunFolderError as error:
        others = snapshots.undamaged_in_words()
        hint = f" Undamaged in {run}, for --checkpoint: {others}." if others else ""
        raise RunFolderError(f"{error}{hint}") from error
    differing = changed_training(TrainConfig.from_dict(state["config"]), recorded)
    if differing:
        raise RunFolderError(
            f"{path} was trained with other settings than {run / CONFIG} says: {differing} in {CONFIG}. One of the two "
            "files was changed, or they belong to two runs: give the checkpoint's own run folder"
        )
    return recorded, state, path
