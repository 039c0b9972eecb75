"""RESULTS.md: what is committed is what the JSONs give, and each number on it comes from one of them."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from fastdat.experiments import results_page
from fastdat.experiments.catalogue import CATALOGUE
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row, Runs
from fastdat.experiments.outcome_files import as_record
from fastdat.experiments.results_page import ITEMS, PAGE, RECORDS, all_items, main, page
from fastdat.util.errors import RunFolderError
from tests.environment import REPOSITORY


def outcome(name: str, **changes: Any) -> Outcome:
    """A record with a number at each place where the page may take one from."""
    table = ResultTable(
        title="Table of the test",
        head="arm",
        columns=(Column("KID", 3),),
        rows=(Row("dat", {"KID": Runs((0.125, 0.375))}, {"FID": 43.21}),),
        paper_columns=(Column("FID", 2),),
    )
    made = Outcome(
        name=name,
        title=f"Title of {name}, scaled down",
        quick=True,
        command=f"fastdat reproduce {name} --quick",
        protocol=("Trained for 77 steps.",),
        tables=(table,),
        findings=("DAT is | ahead by 8.5.", "A second finding."),
        notes=("A note.",),
        config={},
        details={},
        figures={"": Figure()},
        seconds=66.0,
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Name of an experiment -> its JSON; made once, since it asks git for the commit."""
    return {name: json.dumps(as_record(outcome(name))) for name in ("fig3", "fig7", "table2")}


@pytest.fixture
def records(texts: dict[str, str], tmp_path: Path) -> Path:
    """A folder with two experiments, and Fig. 3 beside it."""
    for name, text in texts.items():
        folder = tmp_path / "results" / ("fig3" if name == "fig3" else "reproduce")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(text)
    return tmp_path / "results" / "reproduce"


def overview(text: str) -> dict[str, list[str]]:
    """First cell of the overview, without its link -> the other cells."""
    table = text.split("| --- | --- | --- | --- |\n")[1].split("\n\n")[0]
    rows = [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in table.splitlines()]
    return {re.sub(r"\[(.*)\]\(.*\)", r"\1", first): others for first, *others in rows}


def test_the_committed_page_is_that_of_the_jsons() -> None:
    """If this fails: `make results`."""
    assert (REPOSITORY / PAGE).read_text() == page(REPOSITORY / RECORDS, RECORDS.as_posix())


def test_everything_of_the_paper_and_of_the_catalogue_is_listed() -> None:
    names = {item.name for item in all_items()}
    assert set(CATALOGUE) <= names
    assert "fig3" in names
    papers = " ".join(item.paper for item in ITEMS)
    assert {int(n) for n in re.findall(r"\d+", papers)} == set(range(1, 13))
    assert set(re.findall(r"Table (\w+)", papers)) == {"I", "II", "III", "IV"}
    text = (REPOSITORY / PAGE).read_text()
    assert all(f"fastdat reproduce {name}" in text for name in CATALOGUE)


def test_an_experiment_of_the_catalogue_without_a_place_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(results_page.CATALOGUE, "new", next(iter(CATALOGUE.values())))
    assert all_items()[-1].name == "new"


def test_overview(records: Path) -> None:
    rows = overview(page(records, "results/reproduce"))
    assert rows["Fig. 7"] == [
        "`fastdat reproduce fig7 --quick`",
        r"DAT is \| ahead by 8.5.",
        "[JSON](results/reproduce/fig7.json)",
    ]
    assert rows["Fig. 3"][2] == "[JSON](results/fig3/fig3.json)"
    assert rows["Fig. 6"] == ["`fastdat reproduce fig6`", "not run yet", "-"]
    assert rows["Fig. 2"] == ["-", "a diagram of the method", "-"]
    order = list(rows)
    assert order.index("Fig. 4") < order.index("Table I") < order.index("Table II") < order.index("Fig. 7")


def test_runs_without_a_page_are_said(records: Path) -> None:
    """They are there for everybody to read, and may say something else than the pages beside them."""
    (records / "finished" / "fig6").mkdir(parents=True)
    (records / "finished" / "fig6" / "eps-1-0.json").write_text("{}")
    assert overview(page(records, "results/reproduce"))["Fig. 6"] == [
        "`fastdat reproduce fig6`",
        "runs have ended, no page has been made of them yet",
        "[runs](results/reproduce/finished/fig6)",
    ]


def test_sections(records: Path) -> None:
    text = page(records, "results/reproduce")
    sections = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert sections == [f"Title of {name}, scaled down" for name in ("fig3", "table2", "fig7")]
    assert "![Title of fig7, scaled down](results/reproduce/fig7.png)" in text
    assert "![Title of fig3, scaled down](results/fig3/fig3.png)" in text
    assert "| dat | 0.250 ± 0.177 (2) | 43.21 |" in text
    assert "[Fig. 7](#title-of-fig7-scaled-down)" in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_a_changed_number_changes_the_page(records: Path) -> None:
    before = page(records, "r")
    file = records / "fig7.json"
    record = json.loads(file.read_text())
    record["tables"][0]["rows"][0]["cells"]["KID"]["mean"] = 0.625
    file.write_text(json.dumps(record))
    after = page(records, "r")
    assert [b for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b] == [
        "| dat | 0.625 ± 0.177 (2) | 43.21 |"
    ]


def test_a_record_of_an_earlier_form_has_a_link_only(records: Path) -> None:
    """As that of Fig. 3 was before there were tables."""
    (records.parent / "fig3" / "fig3.json").write_text('{"experiment": "fig3", "arms": {}}')
    text = page(records, "results/reproduce")
    assert overview(text)["Fig. 3"][1:] == [
        "made before records had tables",
        "[JSON](results/fig3/fig3.json)",
    ]
    assert "## Title of fig3" not in text


def test_from_the_command_line(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "RESULTS.md"
    assert main([str(records), str(written)]) == 0
    assert written.read_text() == page(records, "results/reproduce")
    assert capsys.readouterr().out == f"{written}\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "fig7.json is no JSON"),
        ("[]", "fig7.json is no record of an experiment. Make it again"),
        ('{"title": "fig7"}', "fig7.json is no record of an experiment"),
    ],
)
def test_a_damaged_record(
    content: str, message: str, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (records / "fig7.json").write_text(content)
    with pytest.raises(RunFolderError, match=message):
        page(records, "r")
    assert main([str(records), str(tmp_path / "RESULTS.md")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "RESULTS.md").exists()


def test_without_records_there_is_no_page(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A typing error in the folder's name would else replace RESULTS.md by a page of nothing."""
    written = tmp_path / "RESULTS.md"
    written.write_text("kept")
    assert main([str(tmp_path / "reproduse"), str(written)]) == 1
    assert f"error: there is no folder {tmp_path / 'reproduse'}" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty"), str(written)]) == 1
    assert "empty holds no JSON of an experiment; fastdat reproduce NAME makes one" in capsys.readouterr().err
    assert written.read_text() == "kept"
