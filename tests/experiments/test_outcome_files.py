"""The files of an outcome: what stands in the JSON, the page, the CSV, and the pictures."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row, Runs
from fastdat.experiments.outcome_files import as_record, markdown, write
from fastdat.util.errors import RunFolderError

TABLE = ResultTable(
    title="Scores of two arms",
    head="arm",
    columns=(Column("train FID", 1), Column("F", 2), Column("verdict")),
    rows=(
        Row(
            "plain | as it is",
            {"train FID": Runs((20.0, 23.0, 23.0)), "F": 2.97, "verdict": "bad"},
            {"train FID": 19.75},
        ),
        Row("DAT", {"train FID": Runs((17.5,))}, {"train FID": 17.93, "IS": 7.97}),
    ),
    paper_columns=(Column("train FID", 2), Column("IS", 2)),
    comparable=True,
)


def outcome() -> Outcome:
    figure = Figure(figsize=(1, 1))
    figure.add_subplot().plot([0, 1], [1, 3])
    return Outcome(
        name="table9",
        title="Table IX, scaled down: two runs",
        quick=True,
        command="fastdat reproduce table9 --quick",
        protocol=("What was trained.", "What was measured."),
        tables=(TABLE,),
        findings=("DAT is better.", "It costs more.", "It needs no tuning."),
        notes=("The paper prints no spread.",),
        config={"steps": 3},
        details={"curve": [1, 2]},
        figures={"": figure, "-samples": figure},
        seconds=90.0,
    )


def test_runs_have_the_mean_and_the_sample_standard_deviation() -> None:
    runs = Runs((1.0, 2.0, 6.0))
    assert runs.mean == 3.0
    assert runs.std == pytest.approx(7**0.5)
    assert Runs((4.0,)).std is None


@pytest.mark.parametrize("values", [(1.0, float("nan")), (float("inf"),), ()])
def test_runs_without_a_number_are_refused_before_they_are_written(values: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=rf"at least one value, all finite; got {re.escape(str(values))}"):
        Runs(values)
    with pytest.raises(ValueError, match="'DAT', 'FID': a cell needs a finite number; got nan"):
        Row("DAT", {"KID": 1.0, "FID": float("nan")})


COMMIT = {"id": "9628a42" + "0" * 33, "dirty": False}


@pytest.mark.parametrize(
    ("at", "on", "expected"),
    [
        ([], [], "A processor, torch 2, commit 9628a42000; 1.5 minutes. All"),
        ([COMMIT["id"]], ["A processor"], "A processor, torch 2, commit 9628a42000; 1.5 minutes. All"),
        (
            ["1234567890" + "a" * 30 + " with changes", "0.3"],
            [],
            "Trained at commit 1234567890 with changes, fastdat 0.3 on A processor; 1.5 minutes. Page written on A "
            "processor, torch 2, commit 9628a42000. All",
        ),
        (
            [COMMIT["id"]],
            ["A GPU"],
            "Trained at commit 9628a42000 on A GPU; 1.5 minutes. Page written on A processor",
        ),
        (None, None, "A processor, torch 2, commit 9628a42000; 1.5 minutes. All"),  # of an earlier version
    ],
)
def test_the_page_says_where_it_was_trained(at: Any, on: Any, expected: str) -> None:
    record = as_record(outcome()) | {"commit": COMMIT, "trained_at": at, "training_machines": on}
    record["machine"] = {"device": "A processor", "torch": "2", "fastdat": "0.4"}
    if at is None:
        del record["trained_at"], record["training_machines"]
    assert markdown(record).splitlines()[-1].startswith(expected)


def test_all_files_are_written(tmp_path: Path) -> None:
    files = write(outcome(), tmp_path / "new")
    ends = ("json", "md", "csv", "png", "svg")
    assert {path.name for path in files} == {f"table9.{end}" for end in ends} | {
        "table9-samples.png",
        "table9-samples.svg",
    }
    assert (tmp_path / "new" / "table9.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "new" / "table9.svg").read_bytes()


def test_equal_outcomes_give_equal_pictures(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write(outcome(), tmp_path / folder)
    for name in ("table9.svg", "table9.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_json_holds_all_values_with_machine_and_commit(tmp_path: Path) -> None:
    write(outcome(), tmp_path)
    record = json.loads((tmp_path / "table9.json").read_text())
    plain, dat = record["tables"][0]["rows"]
    assert plain["cells"]["train FID"] == {"mean": 22.0, "std": 3**0.5, "n": 3, "values": [20.0, 23.0, 23.0]}
    assert plain["cells"]["F"] == 2.97
    assert dat["paper"] == {"train FID": 17.93, "IS": 7.97}
    assert record["details"] == {"curve": [1, 2]}
    assert record["figures"] == ["table9.png", "table9-samples.png"]
    assert record["quick"] is True
    assert record["seconds"] == 90.0
    assert {"device", "torch"} <= record["machine"].keys()
    assert {"id", "dirty"} == record["commit"].keys()


def test_the_page_has_ours_the_papers_and_the_difference() -> None:
    lines = markdown(as_record(outcome())).splitlines()
    assert lines[0] == "# Table IX, scaled down: two runs"
    table = [line for line in lines if line.startswith("| ")]
    assert table == [
        "| arm | train FID | F | verdict | paper: train FID | paper: IS | difference: train FID |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        r"| plain \| as it is | 22.0 ± 1.7 (3) | 2.97 | bad | 19.75 | - | +2.25 |",
        "| DAT | 17.5 | - | - | 17.93 | 7.97 | -0.43 |",
    ]
    first = lines.index("**DAT is better.**")
    assert lines[first + 1 : first + 5] == ["", "- It costs more.", "- It needs no tuning.", ""]
    assert "- The paper prints no spread." in lines
    assert "    fastdat reproduce table9 --quick" in lines
    assert "![Table IX, scaled down: two runs](table9.png)" in lines


@pytest.mark.parametrize(
    ("findings", "expected"), [((), []), (("DAT is better.",), ["", "**DAT is better.**"])]
)
def test_pages_with_one_finding_or_none(findings: tuple[str, ...], expected: list[str]) -> None:
    lines = markdown(as_record(replace(outcome(), findings=findings))).splitlines()
    picture = "![Table IX, scaled down: two runs](table9.png)"
    assert lines[1 : lines.index(picture) + 1] == [*expected, "", picture]


def test_what_is_not_comparable_has_no_difference() -> None:
    page = markdown(as_record(replace(outcome(), tables=(replace(TABLE, comparable=False),))))
    assert "difference" not in page
    assert "paper: train FID" in page


def test_a_page_inside_another_one_has_lower_headings_and_its_pictures_elsewhere() -> None:
    page = markdown(as_record(outcome()), level=2, folder="results/")
    assert page.startswith("## Table IX")
    assert "(results/table9-samples.png)" in page


def test_the_csv_has_a_line_for_each_value(tmp_path: Path) -> None:
    write(outcome(), tmp_path)
    with (tmp_path / "table9.csv").open(newline="") as file:
        rows = {(row["row"], row["column"]): row for row in csv.DictReader(file)}
    fid = rows["plain | as it is", "train FID"]
    assert (float(fid["mean"]), float(fid["std"]), fid["n"], fid["paper"]) == (22.0, 3**0.5, "3", "19.75")
    assert (rows["DAT", "IS"]["mean"], rows["DAT", "IS"]["paper"]) == ("", "7.97")
    assert rows["plain | as it is", "verdict"]["mean"] == "bad"
    assert ("DAT", "F") not in rows


def test_a_folder_that_cannot_be_made_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write to"):
        write(outcome(), tmp_path / "file")
