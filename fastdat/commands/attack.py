"""``fastdat attack``: how robust the discriminator of a run is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fastdat.commands.common import ProgressLine, in_options, user_errors

ATTACK = "attack.json"
_OPTIONS = {name: f"--{name}" for name in ("norm", "radius", "restarts", "steps", "cap", "seed")} | {
    "samples": "-n",
    "step_size": "--step-size",
}


def attack(
    run: Annotated[Path, typer.Argument(help="Run folder, or a checkpoint file.")],
    data: Annotated[Path | None, typer.Option(help="Data set; by default the one of the run.")] = None,
    checkpoint: Annotated[str, typer.Option(help="latest, best, step-000500, or a file.")] = "latest",
    n: Annotated[int, typer.Option("-n", min=1, help="Reals, and as many generated samples.")] = 512,
    split: Annotated[str, typer.Option(help="Of the reals: train or test.")] = "train",
    norm: Annotated[str, typer.Option(help="Distance of images in the search: rms, linf or l2.")] = "rms",
    radius: Annotated[float, typer.Option(help="Largest distance in the search.")] = 0.1,
    restarts: Annotated[int, typer.Option(min=1, help="Starts of the search for each sample.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each start of the search.")] = 100,
    step_size: Annotated[float, typer.Option(help="Of PGD, in units of images in [-1, 1].")] = 2 / 255,
    cap: Annotated[int, typer.Option(min=1, help="Most steps of PGD.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the noise, of the reals and of all draws.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    ema: Annotated[
        bool, typer.Option("--ema/--no-ema", help="Take the running average of G; D was trained against G.")
    ] = False,
    compile: Annotated[bool, typer.Option("--compile/--no-compile", help="Compile the searches.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--json", help=f"File of all numbers; {ATTACK} in the run folder unless given."),
    ] = None,
) -> None:
    """Measure how robust D is: adversarial examples of G (Fig. 1, 8), PGD (Fig. 9), steepness (Sec. III-C).

    All numbers go to a JSON file, with settings, machine and commit. Of a checkpoint file, they are only printed unless
    --json is given.
    """
    with user_errors():
        from fastdat.robustness.monitor_config import MonitorConfig
        from fastdat.training.attacked import attack_run, shown
        from fastdat.util.files import write_output

        if split not in ("train", "test"):
            raise typer.BadParameter(f"must be train or test; got {split}", param_hint="--split")
        search: dict[str, Any] = {"norm": norm, "radius": radius, "restarts": restarts, "steps": steps}
        with in_options("monitor", _OPTIONS):
            settings = MonitorConfig(samples=n, step_size=step_size, cap=cap, seed=seed, **search)
        record = attack_run(
            run,
            checkpoint,
            settings,
            data=None if data is None else str(data),
            split=split,
            ema=ema,
            device=device,
            compile=compile,
            progress=ProgressLine(patience=2.0),
        )
        of_split = "" if record["split"] is None else f" of {record['split']}"
        typer.echo(
            f"{checkpoint} of {run}: {record['weights']} and D of step {record['step']}, {n} reals{of_split}"
        )
        for line in shown(record):
            typer.echo(line)
        file = out or (run / ATTACK if run.is_dir() else None)
        if file is not None:
            write_output(file, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
            typer.echo(f"all numbers: {file}")
