"""What `make keep-results` copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastdat.experiments.keep_results import keep, main
from fastdat.util.errors import RunFolderError


def make(folder: Path, *names: str, text: str = "new") -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text} {name}")


def kept_in(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_pages_numbers_and_figures_of_finished_experiments(tmp_path: Path) -> None:
    runs, kept = tmp_path / "runs", tmp_path / "kept"
    files = ("table4.json", "table4.md", "table4.csv", "table4.png", "table4.svg", "table4-samples.png")
    make(runs / "table4", *files, "states/table4--a.pt", "table4.log", "runs/dcgan-0/reals.png")
    make(runs / "table4-images", "table4-images.json", "table4-images.png")
    make(runs / "fig9", "fig9.md", "runs/a/log.txt")  # not finished: no JSON
    make(runs / "demo", "fig3.json")  # no experiment of the catalogue
    make(runs / "ssgan", "ssgan.json")
    copies = keep(runs, kept)
    assert {copy.name for copy in copies} == {*files, "table4-images.json", "table4-images.png"}
    assert kept_in(kept) == {copy.name: f"new {copy.name}" for copy in copies}


def test_older_files_of_the_same_experiment_go_and_others_stay(tmp_path: Path) -> None:
    runs, kept = tmp_path / "runs", tmp_path / "kept"
    make(kept, "table4.json", "table4-old.png", "table4-images.png", "fig6.json", text="old")
    make(runs / "table4", "table4.json")
    keep(runs, kept)
    assert kept_in(kept) == {
        "table4.json": "new table4.json",
        "table4-images.png": "old table4-images.png",
        "fig6.json": "old fig6.json",
    }


def test_files_of_finished_runs_are_kept_beside_those_of_earlier_ones(tmp_path: Path) -> None:
    runs, kept = tmp_path / "runs", tmp_path / "kept"
    make(kept / "finished" / "evidence", "dat-0.json", "dat-1.json", text="old")
    make(
        runs / "evidence", "evidence.json", "finished/dat-1.json", "finished/dat-1.png", "runs/dat-1/log.txt"
    )
    make(runs / "evidence-rates", "finished/lr-0.json")  # not finished as a whole
    copies = keep(runs, kept)
    finished = kept / "finished" / "evidence"
    assert copies == [kept / "evidence.json", finished / "dat-1.json", finished / "dat-1.png"]
    assert kept_in(finished) == {
        "dat-0.json": "old dat-0.json",
        "dat-1.json": "new finished/dat-1.json",
        "dat-1.png": "new finished/dat-1.png",
    }
    assert not (kept / "finished" / "evidence-rates").exists()


def test_nothing_to_keep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        RunFolderError, match=r"holds no finished experiment.*run `fastdat reproduce NAME` first"
    ):
        keep(tmp_path, tmp_path / "kept")
    assert main([str(tmp_path), str(tmp_path / "kept")]) == 1
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "runs" / "fig6", "fig6.json")
    assert main([str(tmp_path / "runs"), str(tmp_path / "kept")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'kept'}: fig6.json\n"
