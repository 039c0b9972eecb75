"""The documents: their Python runs, their links lead somewhere, their commands exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from typer.testing import CliRunner

import fastdat
from fastdat import cli
from tests.environment import REPOSITORY
from tests.slow_cases import slow_except

GUIDES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
"""What a user reads."""
LINKED = [
    *GUIDES,
    *(REPOSITORY / name for name in ("CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((REPOSITORY / "fastdat" / "data" / "docs").glob("*.md")),
    *(REPOSITORY / folder / "README.md" for folder in ("kernels", "bench", "fastdat/engine")),
]
"""What is checked for links, commands and make targets."""


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def each(paths: list[Path]) -> pytest.MarkDecorator:
    """One test per page that exists."""
    return pytest.mark.parametrize("path", [path for path in paths if path.exists()], ids=name_of)


# --- Python --------------------------------------------------------------------------------------------------------


def python_blocks(path: Path) -> Iterator[str]:
    """The Python blocks of a page; blank lines in front keep the line numbers of tracebacks."""
    text = path.read_text()
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield "\n" * text.count("\n", 0, block.start(1)) + block[1]


def run_blocks(path: Path) -> dict[str, Any]:
    """Run the Python blocks of a page one after another in one namespace, and return it."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in python_blocks(path):
        exec(compile(block, str(path), "exec"), names)
    return names


WITH_PYTHON = [
    path for path in GUIDES[1:] if "```python" in path.read_text() and path.name != "frameworks.md"
]
QUICK = [path for path in WITH_PYTHON if path.name != "regularizers.md"]


@pytest.mark.parametrize("path", slow_except(QUICK, WITH_PYTHON), ids=name_of)
def test_python_of_the_docs_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncompiled, since each compilation takes many seconds. tests/test_frameworks.py runs frameworks.md."""
    compiled_step = fastdat.dat_step
    monkeypatch.setattr(
        fastdat, "dat_step", lambda *args, **kwargs: compiled_step(*args, **{**kwargs, "compile": False})
    )
    monkeypatch.chdir(tmp_path)
    run_blocks(path)


def test_python_of_the_readme_runs_and_explains_the_step() -> None:
    """The loop runs as pasted, with one compilation; the explanation computes the loss and gradients of dat_step."""
    names = run_blocks(GUIDES[0])
    D, xr, xf = names["D"], names["xr"], names["xf"]
    for scale in (1.0, 1000.0):  # the second one reaches the limits of delta and of the image
        with torch.no_grad():
            D[3].weight.mul_(scale)
        explained = names["dat_loss"](D, xr, xf)
        expected, info = fastdat.reference.dat_step(D, xr, xf, with_info=True)
        gradients = [torch.autograd.grad(loss, list(D.parameters())) for loss in (explained, expected)]
        torch.testing.assert_close(explained, expected)
        torch.testing.assert_close(*gradients)
    assert info.delta_rms_real > 0.1
    assert info.clipped_real > 0.1


# --- links ---------------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each(LINKED)
def test_links_resolve(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith(("https://", "http://")):
            continue
        place, _, anchor = target.partition("#")
        found = path.parent / place if place else path
        assert found.exists(), f"{name_of(path)} links to {target}, which is not there"
        assert not anchor or anchor in anchors(found), (
            f"{name_of(path)} links to {target}, a heading not there"
        )


@each(GUIDES)
def test_every_guide_is_linked_from_the_readme(path: Path) -> None:
    assert path == GUIDES[0] or f"({name_of(path)})" in GUIDES[0].read_text()


# --- commands ------------------------------------------------------------------------------------------------------


OF_THE_SHELL = ("--version", "--install-completion", "--help")
"""Options that end the command, or change files of the user."""


def command_lines(path: Path) -> Iterator[list[str]]:
    """The arguments of every `fastdat ...` command, in blocks and in running text."""
    text = path.read_text().replace("\\\n", " ")
    lines = re.findall(r"^ {4}(fastdat [a-z].*)$", text, re.MULTILINE)
    for line in [*lines, *re.findall(r"`(fastdat [a-z][^`]*)`", text)]:
        if "..." not in line:
            yield shlex.split(line, comments=True)[1:]


@each(LINKED)
def test_commands_parse(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Command, arguments and options exist; presets, settings and configuration files of `fastdat train` do too."""
    monkeypatch.chdir(tmp_path)
    for name, text in re.findall(
        r"^```yaml\n# (\S+)\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL
    ):
        Path(name).write_text(text)
    for arguments in command_lines(path):
        command: Any = typer.main.get_command(cli.app)
        rest = list(arguments)
        while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            if rest[0].isupper():  # `fastdat reproduce NAME`: what follows depends on the name
                rest.clear()
                break
            assert rest[0] in command.commands, f"{name_of(path)}: there is no command in {arguments}"
            command = command.commands[rest.pop(0)]
        if not rest:  # the name of a command alone
            continue
        context = command.make_context(command.name, list(rest), resilient_parsing=rest[0] in OF_THE_SHELL)
        if command.name == "train":
            outcome = CliRunner().invoke(cli.app, [*arguments, "--dry-run"])
            assert outcome.exit_code == 0, f"{name_of(path)}: {arguments}: {outcome.output}"
            run = Path(context.params["outdir"] or "of no run")
            if not run.is_absolute():  # what a later command of the page may read
                run.mkdir(parents=True, exist_ok=True)
                (run / "config.yaml").write_text(outcome.stdout)


@each(LINKED)
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):(?!=)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    text = path.read_text()
    named = re.findall(r"(?:^ {4}|`)make ([a-z][a-z0-9-]*)", text, re.MULTILINE)
    assert set(named) <= targets
