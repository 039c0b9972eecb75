"""The command line: all commands of :mod:`fastdat.commands`.

Slow imports are inside the commands that need them, so that ``fastdat --help`` answers at once.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading

from fastdat.commands import attack, data, evaluate, export, plan, report, reproduce, sample, train, version
from fastdat.commands.common import new_group

app = new_group("Direct Adversarial Training for GANs.", completion=True)
app.callback()(version.root)
app.command()(train.train)
app.command()(plan.plan)
app.command("eval")(evaluate.evaluate)
app.command()(attack.attack)
app.command()(sample.sample)
app.command()(export.export)
app.command()(report.report)
app.command()(train.presets)
app.add_typer(data.app, name="data")
app.add_typer(reproduce.app, name="reproduce")


STOPPED = (128 + signal.SIGHUP, 128 + signal.SIGTERM)
PATIENCE = 8.0
"""Seconds that the end of a stopped process may take. It waits for compilers that still run, whose work is lost."""


def main() -> None:
    """Entry point of the ``fastdat`` command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal whose encoding has no minus sign is no reason for a traceback.
        sys.stdout.reconfigure(errors="replace")
    try:
        app(prog_name="fastdat")
    except SystemExit as end:
        if end.code in STOPPED:
            timer = threading.Timer(PATIENCE, os._exit, (end.code,))
            timer.daemon = True
            timer.start()
        raise


if __name__ == "__main__":
    main()
