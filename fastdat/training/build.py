"""Builds a trainer from a configuration: nets, optimizers, data and evaluator by name."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastdat.data import ImageSet, load_split
from fastdat.data.mixture import MIXTURES, MixtureBatches
from fastdat.engine.spectral.fused import fuse_spectral_norm
from fastdat.engine.spectral.normalise import spectral_weights
from fastdat.metrics.evaluators import Evaluator, ImageEvaluator, ModesEvaluator, Progress, keep_going
from fastdat.training.batches import PartOfBatches, check_shares
from fastdat.training.callbacks import Callback
from fastdat.training.class_names import changed_classes, with_classes
from fastdat.training.device_settings import settled
from fastdat.training.display import Display
from fastdat.training.models import build_nets, classes_of, dataset_of, model_of
from fastdat.training.train_config import TrainConfig
from fastdat.training.trainer import Trainer
from fastdat.util.errors import ConfigError
from fastdat.util.ranks import Ranks
from fastdat.util.version import __version__


def load_data(
    config: TrainConfig,
    split: str = "train",
    progress: Progress = keep_going,
    ranks: Ranks | None = None,
) -> ImageSet | None:
    """The images of ``config.dataset`` from ``config.data``; None for the mixtures, whose points are drawn.

    Args:
        config: names them.
        split: ``"train"`` or ``"test"``.
        progress: called while a packed store is checked, which takes a while if it is large.
        ranks: processes that all call this now and share the checking; None means this one alone.

    Raises:
        ConfigError: there is no such data set, or ``config.data`` is not set.
        DataError: the data are missing, damaged, of another resolution, or without the classes that the model needs.
    """
    model = model_of(config)
    dataset = dataset_of(config)
    if dataset in MIXTURES:
        return None
    if config.data is None:
        raise ConfigError(f"where is {dataset}? Give --data, a packed store or the publisher's files")

    def checked(done: int, total: int) -> None:
        progress(f"checking {dataset} {split}", done, total)

    return load_split(
        dataset, config.data, split, config.resolution, checked, labelled=model.conditional, ranks=ranks
    )


def build_trainer(
    config: TrainConfig,
    data: ImageSet | None,
    outdir: str | Path,
    *,
    evaluator: Evaluator | None = None,
    callbacks: Sequence[Callback] = (),
    display: Display | None = None,
    resume_from: str | Path | None = None,
    extend: bool = False,
) -> Trainer:
    """A trainer that is ready to :meth:`~Trainer.train`; its run folder is created, or its run resumed.

    Args:
        config: all settings; :func:`fastdat.training.device_settings.settled` says what "auto" is.
        data: training images from :func:`load_data`; None for the mixtures.
        outdir: run folder.
        evaluator: makes the scores that ``config.eval`` asks for; by default :func:`build_evaluator`'s.
        callbacks: your own metrics, as in :class:`Trainer`.
        display: shows the run.
        resume_from, extend: as in :class:`Trainer`.

    Raises:
        ConfigError: settings that do not fit each other, the data, this machine or the run in ``outdir``.
        RunFolderError: ``outdir`` cannot be used.
    """
    device = choose_device(config.device)
    ranks, wanted = Ranks.now(), with_classes(config, data)
    config, chosen = ranks.by_first(lambda: settled(wanted, device, outdir, resume_from))
    ranks.together(lambda: check_shares(config, ranks))
    netG, netD = nets_on(config, device)
    if spectral_weights(dict(netD.named_modules())):
        fuse_spectral_norm(netD)  # for the G step; dat_step fuses by itself
    if config.eval.every and evaluator is None:
        evaluator = build_evaluator(config, device, data, class_names=() if data is None else data.classes)
    trainer = _Built(
        netG,
        netD,
        _adam(netG, config),
        _adam(netD, config),
        _batches(config, data, device, ranks),
        config,
        outdir,
        classes=classes_of(config) if model_of(config).conditional else 0,
        evaluator=evaluator,
        callbacks=callbacks,
        display=display,
        resume_from=resume_from,
        extend=extend,
    )
    trainer.note(f"{_versions()}; {_describe(device)}")
    for remark in chosen:
        trainer.note(remark)
    if ranks:
        trainer.note(
            f"{ranks.size} processes, {config.batch_size // ranks.size} samples of each batch in each"
        )
    what = config.dataset if data is None else f"{data.name}, {len(data):,} images"
    trainer.note(f"{config.model} {_size(netG)} (G) and {_size(netD)} (D) on {what}")
    return trainer


class _Built(Trainer):
    """Its nets, optimizers and reals are made from its settings, which the run records."""

    _from_config = True


def build_evaluator(
    config: TrainConfig,
    device: torch.device,
    train: ImageSet | None = None,
    progress: Progress = keep_going,
    class_names: Sequence[str] = (),
) -> Evaluator:
    """The evaluator that makes the scores of ``config.eval``.

    Args:
        config: of the run.
        device: where features are computed.
        train: the training images, if they are in memory already.
        progress: called while packed stores are checked.
        class_names: of the run, if they are known; a conditional model is scored on no other classes.

    Raises:
        ConfigError: the scores do not fit the data.
    """
    dataset = dataset_of(config)
    points = dataset in MIXTURES
    if points != ("modes" in config.eval.metrics):
        expected = "modes" if points else "fid, kid, is, precision-recall"
        raise ConfigError(f"eval.metrics of {dataset} may be {expected}; got {list(config.eval.metrics)}")
    if points:
        return ModesEvaluator(config.eval, MIXTURES[dataset])
    sources: dict[str, Any] = {
        split: _reader(config, split, progress, class_names) for split in config.eval.splits
    }
    if train is not None and "train" in sources:
        sources["train"] = train
    return ImageEvaluator(config.eval, sources, device)


def nets_on(config: TrainConfig, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """G and D of ``config`` on ``device``, in its memory format, which is no longer "auto"."""
    memory_format = torch.channels_last if config.channels_last is True else torch.contiguous_format
    netG, netD = build_nets(config)
    for net in (netG, netD):
        net.to(device, memory_format=memory_format)  # type: ignore[call-overload]
    return netG, netD


def choose_device(name: str) -> torch.device:
    """``"auto"``: CUDA where there is a GPU, else the CPU.

    Raises:
        ConfigError: ``"cuda"`` on a machine without a GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda, but PyTorch sees no GPU here; use device=auto or device=cpu")
    return torch.device(name)


def _reader(
    config: TrainConfig, split: str, progress: Progress, class_names: Sequence[str]
) -> Callable[[], ImageSet]:
    def read() -> ImageSet:
        data = load_data(config, split, progress)
        assert data is not None  # it is None only for mixtures
        changed = changed_classes(class_names, data.classes) if model_of(config).conditional else ""
        if changed:
            raise ConfigError(
                f"{data.name} in {config.data} has other classes than the run: {changed}. Give the data that the run "
                "was trained on"
            )
        return data

    return read


def _adam(net: nn.Module, config: TrainConfig) -> torch.optim.Adam:
    # capturable=True is only for steps that a CUDA graph replays; torch warns if it is stepped without a graph.
    return torch.optim.Adam(net.parameters(), lr=config.lr, betas=config.betas, fused=True)


def _batches(config: TrainConfig, data: ImageSet | None, device: torch.device, ranks: Ranks) -> Any:
    if data is not None:
        return data
    whole = MixtureBatches(MIXTURES[dataset_of(config)], config.batch_size, seed=config.seed, device=device)
    return PartOfBatches(whole, ranks) if ranks else whole


def _versions() -> str:
    return f"fastdat {__version__}, torch {torch.__version__}, Python {platform.python_version()}"


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads of {os.cpu_count()} cores"


def _size(net: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in net.parameters()):,} parameters"
