"""The one command behind all experiments of the catalogue: what it passes on, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from fastdat.cli import app
from fastdat.experiments import catalogue
from fastdat.experiments.catalogue import CATALOGUE, Options
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row, Runs

Calls = list[tuple[str, Options, Path]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The experiments that the command runs, each with its arguments; none is carried out."""
    made: Calls = []

    def load(name: str) -> SimpleNamespace:
        def run(options: Options, folder: Path) -> Outcome:
            made.append((name, options, folder))
            return outcome(name)

        return SimpleNamespace(run=run)

    monkeypatch.setattr(catalogue, "load", load)
    return made


def outcome(name: str) -> Outcome:
    table = ResultTable("A table", "arm", (Column("KID", 3),), (Row("DAT", {"KID": Runs((0.125, 0.375))}),))
    texts = {"title": f"Title of {name}", "command": f"fastdat reproduce {name}"}
    return Outcome(
        name, **texts, quick=True, protocol=(), tables=(table,), findings=(), notes=(), config={}, details={}
    )


def reproduce(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["reproduce", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_all_options_are_passed_on(calls: Calls, tmp_path: Path) -> None:
    """With a value that is not the default, each for itself."""
    for number, (arguments, expected) in enumerate(
        (
            ((), {}),
            (("--full",), {"quick": False}),
            (("--quick",), {}),
            (("--seeds", "3"), {"seeds": 3}),
            (("--data", "elsewhere"), {"data": "elsewhere"}),
            (("--only", "a, b", "--only", "c"), {"only": ("a, b", "c")}),
            (("--device", "cpu"), {"device": "cpu"}),
            (("--no-compile",), {"compile": False}),
        )
    ):
        folder = tmp_path / str(number)
        code, output = reproduce("fig6", "--outdir", str(folder), *arguments)
        assert code == 0, output
        assert calls.pop() == ("fig6", Options(**expected), folder)
    assert not calls


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_experiment(name: str, calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its data it is refused; it writes its files into a folder of its own, and shows its page."""
    monkeypatch.chdir(tmp_path)
    data = CATALOGUE[name].data
    if data is not None:
        code, output = reproduce(name)
        assert code == 2
        assert "--data" in output
        assert f"where is {data}?" in " ".join(output.replace("│", " ").split())
        assert not calls
    code, output = reproduce(name, *(["--data", "images"] if data else []), "--seeds", "2")
    assert code == 0, output
    assert calls == [(name, Options(data="images" if data else None, seeds=2), Path("runs") / name)]
    assert f"# Title of {name}" in output
    assert "| DAT | 0.250 ± 0.177 (2) |" in output
    assert f"{name}.json, {name}.md, {name}.csv" in output
    record = json.loads((tmp_path / "runs" / name / f"{name}.json").read_text())
    assert record["experiment"] == name


def test_the_other_length_is_refused_where_it_would_replace_a_page(calls: Calls, tmp_path: Path) -> None:
    folder = ("--outdir", str(tmp_path))
    assert reproduce("fig6", *folder)[0] == 0
    calls.clear()
    code, output = reproduce("fig6", *folder, "--full")
    assert code == 2
    assert "fig6.json is of a scaled-down run, and a full one would replace it" in " ".join(output.split())
    assert not calls, "before anything is trained"
    assert reproduce("fig6", *folder)[0] == 0
    (tmp_path / "fig6.json").write_text('{"quick": false}')
    code, output = reproduce("fig6", *folder)
    assert code == 2
    assert "of a full run, and a scaled-down one would" in " ".join(output.split())
    assert reproduce("fig6", *folder, "--full")[0] == 0


def test_a_wrong_value_is_an_error_of_the_user(calls: Calls) -> None:
    code, output = reproduce("fig6", "--seeds", "0")
    assert code == 2
    assert "seeds must be an integer >= 1" in output
    assert not calls


def test_table1_from_the_command_line(tmp_path: Path) -> None:
    """The one experiment that trains nothing, in earnest."""
    code, output = reproduce("table1", "--outdir", str(tmp_path))
    assert code == 0, output
    assert {"table1.json", "table1.md", "table1.csv"} <= {path.name for path in tmp_path.iterdir()}
    record = json.loads((tmp_path / "table1.json").read_text())
    assert record["experiment"] == "table1"
    assert record["tables"]
    assert f"# {record['title']}" in output
