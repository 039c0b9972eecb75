"""Runs a command in this process."""

from __future__ import annotations

from typer.testing import CliRunner

from fastdat import cli


def invoke(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of ``fastdat ARGUMENTS``."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr
