"""``fastdat sample``: images of a trained generator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastdat.commands.common import user_errors


def sample(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    n: Annotated[int, typer.Option("-n", min=1, help="Number of samples; of rows with --interpolate.")] = 64,
    grid: Annotated[Path | None, typer.Option(help="Write one PNG with all samples.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Write one PNG per sample into this folder.")] = None,
    interpolate: Annotated[
        int | None, typer.Option(min=2, help="Draw rows of this many images between two latents.")
    ] = None,
    label: Annotated[
        int | None, typer.Option(help="Class, for a conditional model; by default random.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
    checkpoint: Annotated[str, typer.Option(help="latest, best, step-000500, or a file.")] = "latest",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    ema: Annotated[
        bool, typer.Option("--ema/--no-ema", help="Sample the running average of G, if there is one.")
    ] = True,
) -> None:
    """Generate samples with a run's generator, as one grid or as files."""
    with user_errors():
        if (grid is None) == (folder is None):
            raise typer.BadParameter(
                "give exactly one of --grid and --folder", param_hint="--grid / --folder"
            )
        if interpolate and folder:
            raise typer.BadParameter(
                "rows can only be written with --grid, not with --folder", param_hint="--interpolate"
            )
        from fastdat.training.sample_files import check_grid, write_folder, write_grid, write_strips
        from fastdat.training.trained import load_trained

        if grid is not None:
            check_grid(n * (interpolate or 1))
        trained = load_trained(run, checkpoint, ema=ema, device=device)
        if folder is not None:
            write_folder(folder, trained.samples(n, seed, label))
            typer.echo(f"{n} images in {folder}")
        elif interpolate:
            write_strips(grid or Path(), trained.interpolations(n, interpolate, seed, label), interpolate)
            typer.echo(str(grid))
        else:
            write_grid(grid or Path(), trained.samples(n, seed, label))
            typer.echo(str(grid))
