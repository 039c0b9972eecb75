"""The command line: all commands of :mod:`fastdat.commands`.

Slow imports are inside the commands that need them, so that ``fastdat --help`` answers at once.
"""

from __future__ import annotations

from fastdat.commands import data, evaluate, report, reproduce, sample, train
from fastdat.commands.common import new_group

app = new_group("Direct Adversarial Training for GANs.")
app.command()(train.train)
app.command("eval")(evaluate.evaluate)
app.command()(sample.sample)
app.command()(report.report)
app.command()(train.presets)
app.add_typer(data.app, name="data")
app.add_typer(reproduce.app, name="reproduce")


def main() -> None:
    """Entry point of the ``fastdat`` command."""
    app(prog_name="fastdat")


if __name__ == "__main__":
    main()
