"""The command line: ``train``, ``presets``, ``data`` and ``reproduce``. It parses; the work is elsewhere.

Whatever is slow to import is imported inside the command that needs it, so that ``fastdat --help`` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

try:
    import typer
except ModuleNotFoundError as error:
    raise SystemExit(f'the fastdat command needs {error.name}: pip install "fastdat[train]"') from error

if TYPE_CHECKING:
    from fastdat.data import ImageSet
    from fastdat.training import TrainConfig

# Plain tracebacks for what is unexpected; what is the user's to mend goes through user_errors().
_SETTINGS: dict[str, Any] = {
    "no_args_is_help": True,
    "pretty_exceptions_enable": False,
    "add_completion": False,
}
app = typer.Typer(help="Direct Adversarial Training for GANs.", **_SETTINGS)
data_app = typer.Typer(help="Get and check data sets.", **_SETTINGS)
app.add_typer(data_app, name="data")
reproduce_app = typer.Typer(help="Repeat the paper's experiments.", **_SETTINGS)
app.add_typer(reproduce_app, name="reproduce")


def main() -> None:
    """Entry point of the ``fastdat`` command."""
    app(prog_name="fastdat")


# --- train -------------------------------------------------------------------------------------------------------


@app.command()
def train(
    preset: Annotated[str, typer.Option(help="Configuration to start from; see: fastdat presets.")],
    data: Annotated[Path | None, typer.Option(help="Folder that holds the data set.")] = None,
    outdir: Annotated[
        Path | None, typer.Option(help="Run folder to make; must not exist or be empty.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="G steps in all.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples a side.")] = None,
    ngf: Annotated[int | None, typer.Option(help="Full width of G in channels.")] = None,
    ndf: Annotated[int | None, typer.Option(help="Full width of D in channels.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, batches and noise.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    compile: Annotated[bool | None, typer.Option("--compile/--no-compile", help="Compile the steps.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. lr=1e-4 or dat.eps=0.5."),
    ] = None,
    download: Annotated[
        bool, typer.Option(help="Download the data set into --data where it is missing.")
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Print the resolved configuration and stop.")] = False,
) -> None:
    """Train a GAN and write a run folder: config.yaml, log.txt, stats.jsonl, samples/."""
    with user_errors():
        from fastdat.training import build_trainer, load_data
        from fastdat.training.config import parse_assignment

        flags = {
            "steps": steps,
            "batch_size": batch_size,
            "ngf": ngf,
            "ndf": ndf,
            "seed": seed,
            "device": device,
            "compile": compile,
        }
        changes = {key: value for key, value in flags.items() if value is not None}
        config = _preset(preset).replace(changes | dict(map(parse_assignment, set_ or [])))
        if dry_run:
            _print_config(config)
            return
        data, outdir = _required("--data", data), _required("--outdir", outdir)
        if download:
            _download(config.dataset, data)
        images: ImageSet = load_data(config, data)
        build_trainer(config, images, outdir).train()


@app.command()
def presets() -> None:
    """List the presets of `fastdat train`."""
    with user_errors():
        from fastdat.training.presets import PRESETS

        width = max(map(len, PRESETS))
        for name, config in PRESETS.items():
            attack = "DAT" if config.dat.attacks else "no attack"
            typer.echo(
                f"{name:{width}}  {config.model} on {config.dataset} at {config.resolution}, {attack}: "
                f"{config.steps:,} steps, batch {config.batch_size}, n_dis {config.n_dis}, lr {config.lr:g}"
            )


# --- data --------------------------------------------------------------------------------------------------------


@data_app.command("download")
def data_download(
    dataset: Annotated[str, typer.Argument(help="cifar10")],
    dest: Annotated[Path, typer.Argument(help="Folder to put it in.")],
) -> None:
    """Download a data set from its publisher and check it against the publisher's checksum."""
    with user_errors():
        _download(dataset, dest)


def _download(dataset: str, dest: Path) -> None:
    from fastdat.data import DataError
    from fastdat.data.download import fetch
    from fastdat.data.registry import ARCHIVES

    if dataset not in ARCHIVES:
        raise DataError(f"no download is known for {dataset!r}; there are: {', '.join(ARCHIVES)}")
    archive = ARCHIVES[dataset]
    if not (dest / archive.folder).is_dir():
        typer.echo(f"{archive.url} -> {dest}")
    folder = fetch(archive, dest, _percent() if sys.stderr.isatty() else None)
    typer.echo(f"{dataset} is in {folder}")


def _percent() -> Any:
    """A progress callback that rewrites one line of standard error."""

    def show(done: int, total: int | None) -> None:
        share = f" {100 * done // total:3d}%" if total else ""
        end = "\n" if done == total else ""
        print(f"\r{done / 2**20:8.1f} MiB{share}", end=end, file=sys.stderr, flush=True)

    return show


# --- reproduce ---------------------------------------------------------------------------------------------------


@reproduce_app.command("fig3")
def reproduce_fig3(
    iterations: Annotated[int | None, typer.Option(help="Of each GAN; 3000 unless given.")] = None,
    full: Annotated[bool, typer.Option("--full", help="The figure's 10,000 iterations.")] = False,
    seeds: Annotated[int, typer.Option(help="GANs of each arm and mixture.")] = 6,
    outdir: Annotated[Path, typer.Option(help="Folder for picture, table and JSON.")] = Path("runs/fig3"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    compile: Annotated[bool, typer.Option("--compile/--no-compile", help="Compile the steps.")] = True,
    init: Annotated[str, typer.Option(help="Initial weights: kaiming or torch.")] = "kaiming",
) -> None:
    """Nine Gaussians without attack, with DAT and with second-order DAT: Fig. 3, and a table of modes found."""
    with user_errors():
        from fastdat.experiments import fig3

        if full and iterations is not None:
            raise typer.BadParameter("is 10,000 iterations: leave --iterations out", param_hint="--full")
        settings: dict[str, Any] = {"seeds": seeds, "compile": compile, "device": device, "init": init}
        if full or iterations is not None:
            settings["iterations"] = fig3.FULL if full else iterations
        fig3.run(fig3.Fig3Config(**settings), outdir)
        typer.echo(f"{outdir / 'fig3.png'}, fig3.txt, fig3.json")


# --- shared ------------------------------------------------------------------------------------------------------


@contextmanager
def user_errors() -> Iterator[None]:
    """Within it, what the user can mend is printed as one message, without a traceback. Exit code 2.

    A run that broke down with NaN is exit code 1; an interrupted one 130. Any other error keeps its traceback.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from error
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("matplotlib", "PIL", "rich", "yaml"):
            raise
        typer.echo(f'error: this command needs {error.name}: pip install "fastdat[train]"', err=True)
        raise typer.Exit(2) from error
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(code) from error


def _exit_code(error: Exception) -> int | None:
    from fastdat.data.errors import DataError
    from fastdat.training.errors import ConfigError, NonFiniteError, RunFolderError

    if isinstance(error, NonFiniteError):
        return 1
    return 2 if isinstance(error, (ConfigError, DataError, RunFolderError)) else None


def _preset(name: str) -> TrainConfig:
    from fastdat.training.presets import preset

    return preset(name)


def _print_config(config: TrainConfig) -> None:
    import yaml

    typer.echo(yaml.safe_dump(config.to_dict(), sort_keys=False), nl=False)


def _required(option: str, value: Path | None) -> Path:
    """``value``, which only ``--dry-run`` can do without."""
    if value is None:
        raise typer.BadParameter("is required", param_hint=option)
    return value


if __name__ == "__main__":
    main()
