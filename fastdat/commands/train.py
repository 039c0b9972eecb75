"""``fastdat train`` and ``fastdat presets``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastdat.commands.common import ProgressLine, user_errors

if TYPE_CHECKING:
    from fastdat.training import TrainConfig


def train(
    preset: Annotated[
        str | None, typer.Option(help="Configuration to start from; see: fastdat presets.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of settings, or a run folder, whose config.yaml starts the same training; on top of "
            "--preset if both are given."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data set: a packed store or the publisher's files.")
    ] = None,
    outdir: Annotated[
        Path | None, typer.Option(help="Run folder; a run that was stopped in it is resumed.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="G steps in total.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Reals and fakes per D step.")] = None,
    ngf: Annotated[int | None, typer.Option(help="Full width of G in channels.")] = None,
    ndf: Annotated[int | None, typer.Option(help="Full width of D in channels.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, batches and noise.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16, or auto: bf16 on a GPU that computes it.")
    ] = None,
    compile: Annotated[bool | None, typer.Option("--compile/--no-compile", help="Compile the steps.")] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Checkpoint or run folder whose weights of G and D the training starts from."),
    ] = None,
    logger: Annotated[str | None, typer.Option(help="tensorboard, wandb (Weights & Biases) or none.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. lr=1e-4 or dat.eps=0.5."),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Checkpoint to resume from if not the latest: newest, best, step-000500, or a file.",
        ),
    ] = None,
    extend: Annotated[
        bool,
        typer.Option("--extend", help="Resume with other --steps although the decay of the rates changes."),
    ] = False,
    download: Annotated[
        bool, typer.Option(help="Download the data set into --data if it is missing.")
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Print the resolved configuration and stop.")] = False,
) -> None:
    """Train a GAN and write a run folder; the same command again resumes a run that was stopped or killed.

    On several GPUs: torchrun --nproc-per-node 8 -m fastdat train ...; --batch-size is the batch of all of them.
    """
    with user_errors():
        from fastdat.commands.data import download_into
        from fastdat.metrics.evaluators import keep_going
        from fastdat.training import build_trainer, load_data
        from fastdat.training.config_file import with_absolute_paths
        from fastdat.training.launch import joined
        from fastdat.training.models import dataset_of
        from fastdat.training.train_config import parse_assignment

        flags = {
            "steps": steps,
            "batch_size": batch_size,
            "ngf": ngf,
            "ndf": ndf,
            "seed": seed,
            "device": device,
            "precision": precision,
            "compile": compile,
            "logger": logger,
            "data": data and str(data),
            "init_from": init_from and str(init_from),
        }
        changes = {key: value for key, value in flags.items() if value is not None}
        changes |= dict(map(parse_assignment, set_ or []))
        settings = with_absolute_paths(_start(preset, config, changes).replace(changes))
        if dry_run:
            _print_config(settings)
            return
        outdir = _required("--outdir", outdir)
        with joined(settings.device, settings.hang_timeout) as ranks:
            if download:
                where = _required("--data", None if settings.data is None else Path(settings.data))
                ranks.by_first(lambda: download_into(dataset_of(settings), where))
            progress = ProgressLine(patience=2) if ranks.first else keep_going
            data_set = ranks.together(lambda: load_data(settings, progress=progress, ranks=ranks))
            build_trainer(settings, data_set, outdir, resume_from=from_, extend=extend).train()


def presets() -> None:
    """List the presets of `fastdat train`."""
    with user_errors():
        from fastdat.training.presets import PRESETS

        width = max(map(len, PRESETS))
        for name, config in PRESETS.items():
            typer.echo(
                f"{name:{width}}  {config.model} on {_images(config)}, {_regularized(config)}: "
                f"{config.steps:,} steps, batch {config.batch_size}, n_dis {config.n_dis}, lr {config.lr:g}"
            )


def _images(config: TrainConfig) -> str:
    """``cifar10 at 32``; points of a mixture have no resolution."""
    from fastdat.data.mixture import MIXTURES

    return config.dataset if config.dataset in MIXTURES else f"{config.dataset} at {config.resolution}"


def _regularized(config: TrainConfig) -> str:
    """``DAT, r1, r2``: the attack and the regularizers by their names."""
    other = config.attack.name if config.attack is not None else "no attack"
    return ", ".join(["DAT" if config.dat.attacks else other, *(term.name for term in config.regularizers)])


def _start(name: str | None, file: Path | None, changes: Mapping[str, Any]) -> TrainConfig:
    """The preset ``name``, or the defaults, with the settings in ``file``, which ``changes`` will change."""
    from fastdat.training.config_file import with_file
    from fastdat.training.presets import preset
    from fastdat.training.train_config import TrainConfig

    if name is None and file is None:
        raise typer.BadParameter(
            "give one of them, or both; fastdat presets lists the presets", param_hint="--preset / --config"
        )
    config = TrainConfig() if name is None else preset(name)
    return config if file is None else with_file(config, file, changes)


def _print_config(config: TrainConfig) -> None:
    import yaml

    typer.echo(yaml.safe_dump(config.to_dict(), sort_keys=False), nl=False)


def _required(option: str, value: Path | None) -> Path:
    """``value``, which is required unless ``--dry-run`` is given."""
    if value is None:
        raise typer.BadParameter(
            "this option is required; only --dry-run works without it", param_hint=option
        )
    return value
