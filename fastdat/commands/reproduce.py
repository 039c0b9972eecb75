"""``fastdat reproduce NAME``: the paper's experiments, one command each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fastdat.commands.common import new_group, user_errors
from fastdat.experiments.catalogue import CATALOGUE, Entry

app = new_group("Repeat the paper's experiments.")


@app.command("fig3")
def run_fig3(
    iterations: Annotated[int | None, typer.Option(help="Of each GAN; 3000 unless given.")] = None,
    full: Annotated[
        bool,
        typer.Option("--full/--quick", help="The figure's 10,000 iterations, or what --iterations says."),
    ] = False,
    seeds: Annotated[int, typer.Option(help="GANs of each arm and mixture.")] = 6,
    outdir: Annotated[Path, typer.Option(help="Folder for all files.")] = Path("runs/fig3"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    compile: Annotated[bool, typer.Option("--compile/--no-compile", help="Compile the steps.")] = True,
    init: Annotated[str, typer.Option(help="Initial weights: kaiming or torch.")] = "kaiming",
    landing: Annotated[
        bool,
        typer.Option(
            "--landing",
            help="Only draw landing.png from fig3.json and fig3.png in --outdir. Other options have no effect.",
        ),
    ] = False,
) -> None:
    """Fig. 3: nine Gaussians without attack, with DAT and with second-order DAT, and a table of modes found."""
    with user_errors():
        if landing:
            from fastdat.experiments.points.fig3_landing import write_landing

            if full or iterations is not None:
                raise typer.BadParameter("leave --iterations and --full out", param_hint="--landing")
            typer.echo(write_landing(outdir))
            return

        from fastdat.experiments.points import fig3

        if full and iterations is not None:
            raise typer.BadParameter("is 10,000 iterations: leave --iterations out", param_hint="--full")
        settings: dict[str, Any] = {"seeds": seeds, "compile": compile, "device": device, "init": init}
        if full or iterations is not None:
            settings["iterations"] = fig3.FULL if full else iterations
        fig3.run(fig3.Fig3Config(**settings), outdir)
        typer.echo(f"{outdir}: fig3.md, fig3.json, fig3.csv, fig3.png, fig3.svg")


@app.command("regularizers")
def run_regularizers(
    iterations: Annotated[int, typer.Option(help="Of each GAN.")] = 2_500,
    quick: Annotated[
        bool, typer.Option("--quick", help="Four arms, and two seeds unless --seeds is given.")
    ] = False,
    seeds: Annotated[int | None, typer.Option(help="GANs of each arm and mixture; 4 unless given.")] = None,
    loss: Annotated[
        list[str] | None, typer.Option(help="May be given several times; gan and wgan unless given.")
    ] = None,
    outdir: Annotated[Path, typer.Option(help="Folder for table and JSON.")] = Path("runs/regularizers"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    compile: Annotated[bool, typer.Option("--compile/--no-compile", help="Compile the steps.")] = True,
) -> None:
    """Gradient penalties, consistency terms and other attacks beside DAT on nine Gaussians, and a table of modes found.

    It is no experiment of the paper, which compares these methods on images.
    """
    with user_errors():
        from fastdat.experiments.points import regularizer_study

        settings: dict[str, Any] = {"iterations": iterations, "quick": quick, "compile": compile}
        settings |= {"device": device, "seeds": seeds if seeds is not None else 2 if quick else 4}
        if loss:
            settings["losses"] = tuple(loss)
        regularizer_study.run(regularizer_study.RegularizersConfig(**settings), outdir)
        typer.echo(f"{outdir / 'regularizers.md'}, regularizers.json")


def _command(name: str, entry: Entry) -> Callable[..., None]:
    """The command of an experiment of the catalogue; all of them have the same options."""

    def run(
        quick: Annotated[
            bool,
            typer.Option(
                "--quick/--full",
                help="At most 15 minutes on two cores, or the full length: the paper's, or that of docs/evidence.md.",
            ),
        ] = True,
        seeds: Annotated[int | None, typer.Option(help="Independent runs of each arm.")] = None,
        data: str | None = None,
        only: Annotated[
            list[str] | None,
            typer.Option(
                help="Only the arm of this name, or arms whose names contain it; may be given several times."
            ),
        ] = None,
        outdir: Path | None = None,
        device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
        compile: Annotated[bool, typer.Option("--compile/--no-compile", help="Compile the steps.")] = True,
    ) -> None:
        with user_errors():
            from fastdat.experiments import catalogue, outcome_files

            if entry.data is not None and data is None:
                raise typer.BadParameter(f"where is {entry.data}? Give its folder", param_hint="--data")
            settings: dict[str, Any] = {"device": device, "only": tuple(only or ())}
            options = catalogue.Options(quick=quick, seeds=seeds, data=data, compile=compile, **settings)
            folder = outdir or Path("runs") / name
            outcome_files.check_length(name, folder, quick=quick)
            outcome = catalogue.load(name).run(options, folder)
            files = outcome_files.write(outcome, folder)
            typer.echo(outcome_files.markdown(outcome_files.as_record(outcome)))
            typer.echo(f"{folder}: {', '.join(path.name for path in files)}")

    # typer evaluates the annotations above as text, outside this function, where ``entry`` and ``name`` are unknown.
    folder_help = (
        f"Folder of {entry.data}."
        if entry.data
        else "Folder of images, where --full needs them; --quick does not."
    )
    run.__annotations__["data"] = Annotated[str | None, typer.Option(help=folder_help)]
    outdir_help = f"Folder for all files; runs/{name} unless given."
    run.__annotations__["outdir"] = Annotated[Path | None, typer.Option(help=outdir_help)]
    return run


for _name, _entry in CATALOGUE.items():
    app.command(_name, help=_entry.summary)(_command(_name, _entry))
