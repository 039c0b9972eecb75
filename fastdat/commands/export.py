"""``fastdat export``: a trained generator as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastdat.commands.common import user_errors


def export(
    run: Annotated[Path, typer.Argument(help="Run folder, or a checkpoint file.")],
    safetensors: Annotated[
        Path | None, typer.Option(help="Write G's weights by name, with its settings, for safetensors.")
    ] = None,
    onnx: Annotated[Path | None, typer.Option(help="Write G as an ONNX model.")] = None,
    pt2: Annotated[Path | None, typer.Option(help="Write G as a program of torch.export.")] = None,
    checkpoint: Annotated[str, typer.Option(help="latest, best, step-000500, or a file.")] = "latest",
    ema: Annotated[
        bool, typer.Option("--ema/--no-ema", help="Export the running average of G, if there is one.")
    ] = True,
) -> None:
    """Write a run's generator as a file that other programs read; the file is loaded back and compared first."""
    with user_errors():
        wanted = {"safetensors": safetensors, "onnx": onnx, "pt2": pt2}
        files = {form: path for form, path in wanted.items() if path is not None}
        if not files:
            raise typer.BadParameter(
                "give at least one of them, with the file to write",
                param_hint="--safetensors / --onnx / --pt2",
            )
        from fastdat.training.export_formats import FORMATS
        from fastdat.training.trained import load_trained

        trained = load_trained(run, checkpoint, ema=ema, device="cpu")
        for form, path in files.items():
            typer.echo(f"{path}: {FORMATS[form](trained, path)}")
