"""``fastdat sample``: images of a trained generator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastdat.commands.common import user_errors


def sample(
    run: Annotated[Path, typer.Argument(help="Run folder, or a checkpoint file.")],
    n: Annotated[int, typer.Option("-n", min=1, help="Number of samples; of walks with --interpolate.")] = 64,
    grid: Annotated[Path | None, typer.Option(help="Write one PNG with all samples.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Write one PNG per sample into this folder.")] = None,
    animation: Annotated[
        Path | None, typer.Option(help="Write walks as an endless animation: a .gif, .webp or .png.")
    ] = None,
    scale: Annotated[int, typer.Option(min=1, max=32, help="Width and height of a pixel.")] = 1,
    interpolate: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Samples of a walk from one latent to another: in a row with --grid, one after the other with "
            "--animation (there 24 by default).",
        ),
    ] = None,
    class_: Annotated[
        str | None,
        typer.Option(
            "--class",
            help="Class by name, or by number if no class has that name, for a conditional model; by default random.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
    checkpoint: Annotated[str, typer.Option(help="latest, best, step-000500, or a file.")] = "latest",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    ema: Annotated[
        bool, typer.Option("--ema/--no-ema", help="Sample the running average of G, if there is one.")
    ] = True,
) -> None:
    """Generate samples with a run's generator: as one grid, as files, or as walks from latent to latent."""
    with user_errors():
        given = [path for path in (grid, folder, animation) if path is not None]
        if len(given) != 1:
            raise typer.BadParameter(
                "give exactly one of --grid, --folder and --animation",
                param_hint="--grid / --folder / --animation",
            )
        if interpolate and folder:
            raise typer.BadParameter(
                "walks can be written with --grid or --animation, not with --folder",
                param_hint="--interpolate",
            )
        from fastdat.training import sample_files
        from fastdat.training.trained import load_trained

        steps = interpolate or (24 if animation else 1)
        if animation is not None:
            sample_files.check_animation(animation)
        if folder is not None:
            sample_files.check_folder(folder, n)
        else:
            sample_files.check_count(n * steps)
        if grid is not None:
            sample_files.check_grid(grid)
        trained = load_trained(run, checkpoint, ema=ema, device=device)
        resolution = trained.config.resolution
        if animation is not None:
            sample_files.check_pixels(n, resolution, scale, frames=2 * steps - 2)
        elif grid is not None:
            sample_files.check_pixels(n * steps, resolution, scale, columns=interpolate)
        label = None if class_ is None else trained.class_number(class_)
        if folder is not None:
            sample_files.write_folder(folder, trained.samples(n, seed, label), scale)
            typer.echo(f"{n} images in {folder}")
            return
        if steps == 1:
            sample_files.write_grid(given[0], trained.samples(n, seed, label), scale)
        else:
            walks = trained.interpolations(n, steps, seed, label)
            write = sample_files.write_animation if animation else sample_files.write_strips
            write(given[0], walks, scale)
        typer.echo(str(given[0]))
