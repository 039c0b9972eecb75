"""``fastdat eval``: scores of a trained generator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastdat.commands.common import ProgressLine, in_options, listed, user_errors

if TYPE_CHECKING:
    from fastdat.util.ranks import Ranks

_OPTIONS = {
    name: f"--{name}" for name in ("extractor", "weights", "metrics", "splits", "fakes", "reals", "seed")
}


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    data: Annotated[Path | None, typer.Option(help="Data set; by default the one of the run.")] = None,
    checkpoint: Annotated[str, typer.Option(help="latest, best, step-000500, or a file.")] = "latest",
    extractor: Annotated[
        str | None, typer.Option(help="inception-v3-compat, efficientnet-lite0, ...")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="File of the extractor's weights, for machines without a network.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(help="Some of fid,kid,is,precision-recall.")] = None,
    splits: Annotated[str | None, typer.Option(help="Some of train,test.")] = None,
    fakes: Annotated[int | None, typer.Option(help="Number of generated images; 50000 in Table II.")] = None,
    reals: Annotated[int | None, typer.Option(help="At most this many real images of each split.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the noise and of all random choices.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Another setting of the scores, e.g. eval.is_splits=5."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    ema: Annotated[
        bool, typer.Option("--ema/--no-ema", help="Score the running average of G, if there is one.")
    ] = True,
) -> None:
    """Score a run's generator against train and test images: FID, KID, IS; added to its metrics.jsonl.

    What no option says is as in the run's own settings (eval.fakes, eval.extractor, ...).

    On several GPUs, with the same scores: torchrun --nproc-per-node 8 -m fastdat eval RUN.
    """
    with user_errors():
        if run.is_file():
            raise typer.BadParameter(
                "give the run folder, and name the checkpoint with --checkpoint: the scores are added to the folder",
                param_hint="RUN",
            )
        from fastdat.training.launch import joined

        given: dict[str, Any] = {
            "data": data and str(data),
            "eval.extractor": extractor,
            "eval.weights": weights and str(weights),
            "eval.metrics": listed(metrics),
            "eval.splits": listed(splits),
            "eval.fakes": fakes,
            "eval.reals": reals,
            "eval.seed": seed,
        }
        settings = _others(set_ or []) | {key: value for key, value in given.items() if value is not None}
        with joined(device) as ranks, in_options("eval", _OPTIONS):
            _score(run, checkpoint, ema, device, settings, ranks)


def _others(assignments: list[str]) -> dict[str, Any]:
    """The settings that --set gives."""
    from fastdat.training.train_config import parse_assignment

    settings = dict(map(parse_assignment, assignments))
    wrong = [key for key in settings if not key.startswith("eval.")]
    if wrong:
        raise typer.BadParameter(
            f"must be a setting of the scores, eval.*; got {wrong[0]}", param_hint="--set"
        )
    return settings


def _score(
    run: Path, checkpoint: str, ema: bool, device: str, settings: dict[str, Any], ranks: Ranks
) -> None:
    """Score a run with changed ``settings``; rank 0 shows and writes what all ranks find together."""
    from fastdat.metrics.evaluators import keep_going, shown
    from fastdat.training.run_folder import append_metrics
    from fastdat.training.trained import load_trained

    trained = ranks.together(lambda: load_trained(run, checkpoint, ema=ema, device=device, settings=settings))
    if ranks.first:
        given_now = ", ".join(key.removeprefix("eval.") for key in settings) or "none"
        typer.echo(
            f"scoring {checkpoint} of {run} ({trained.weights}, step {trained.step}): {trained.config.eval.summary} "
            f"(settings of the run; given now: {given_now})",
            err=True,
        )
    records = trained.evaluate(ProgressLine() if ranks.first else keep_going) or []

    def write() -> None:
        for record in records:  # all are shown first, so that none is lost if the file cannot be written
            typer.echo(shown(record))
        for record in records:
            append_metrics(run, record)

    ranks.by_first(write)
