"""The files of a run, as they are written and rewound."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fastdat.training import RunFolderError
from fastdat.training.run_folder import RunFolder


def test_files_of_a_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "run")
    folder.write_config({"b": 1, "a": [1, 2]})
    folder.write_reals(b"png")
    folder.append_stats({"step": 1, "loss_d": 2.5})
    folder.append_stats({"step": 2, "loss_d": 1.5})
    folder.append_log("one\ntwo")
    assert folder.write_samples(500, b"png") == folder.path / "samples" / "step-000500.png"
    assert (folder.path / "config.yaml").read_text().startswith("b: 1\n"), "in the order given"
    assert yaml.safe_load((folder.path / "config.yaml").read_text()) == {"b": 1, "a": [1, 2]}
    lines = (folder.path / "stats.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss_d"] for line in lines] == [2.5, 1.5]
    assert [line.split("  ")[1] for line in (folder.path / "log.txt").read_text().splitlines()] == [
        "one",
        "two",
    ]
    names = sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file())
    assert names == [
        ".lock",
        "config.yaml",
        "log.txt",
        "reals.png",
        "samples/step-000500.png",
        "stats.jsonl",
    ]


def test_another_current_folder_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback may change it."""
    monkeypatch.chdir(tmp_path)
    folder = RunFolder("run")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    folder.append_log("one")
    folder.write_samples(1, b"png")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        ".lock",
        "checkpoints",
        "log.txt",
        "samples",
    }
    assert folder.path == tmp_path / "run"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.write_reals(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunFolderError, match=r"reals.png: No space left on device.*it has no checkpoint yet"):
        folder.write_reals(b"new")
    assert (folder.path / "reals.png").read_bytes() == b"old"
    assert {path.name for path in folder.path.iterdir()} == {".lock", "checkpoints", "samples", "reals.png"}


def test_stats_must_be_finite(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        RunFolder(tmp_path / "run").append_stats({"loss_d": math.nan})


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    with pytest.raises(RunFolderError, match="is not empty and holds no run"):
        RunFolder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert (tmp_path / "samples").is_dir()
    assert not folder.has_config()


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("data")
    with pytest.raises(RunFolderError, match=r"cannot use .*file as a run folder: "):
        RunFolder(tmp_path / "file")


def test_a_kill_during_the_first_write_of_the_configuration_leaves_a_usable_folder(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").close()
    (tmp_path / "run" / ".config.yaml.tmp").write_text("model:")
    RunFolder(tmp_path / "run").close()


def test_rewind_drops_later_lines_and_samples(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (2, 4, 6):
        folder.append_stats({"step": step})
        folder.append_metrics({"step": step, "scores": {}})
        folder.write_samples(step, b"png")
    with (tmp_path / "stats.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # a kill in the middle of a write may leave this
    folder.rewind(4)
    for name in ("stats.jsonl", "metrics.jsonl"):
        assert [json.loads(line)["step"] for line in (tmp_path / name).read_text().splitlines()] == [2, 4]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "step-000002.png",
        "step-000004.png",
    ]


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "stats.jsonl").write_text('{"step": 2}\nrubbish\n{"step": 4}\n')
    with pytest.raises(RunFolderError, match=r"stats.jsonl, line 2, is damaged: b'rubbish'"):
        folder.rewind(4)


def test_rewind_keeps_files_with_other_names(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    names = ("step-000005 (copy).png", "step-000005-annotated.png", "step-000005.png", "step-000003.png")
    for name in names:
        (tmp_path / "run" / "samples" / name).write_bytes(b"")
    folder.rewind(3)
    assert {path.name for path in (tmp_path / "run" / "samples").iterdir()} == set(names) - {
        "step-000005.png"
    }


def test_rewind_drops_the_scores_of_an_unfinished_scoring(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for step in (2, 4):
        folder.append_metrics({"step": step})
        folder.append_stats({"step": step})
    folder.rewind(4, scored=False)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 2}\n'
    assert len((tmp_path / "run" / "stats.jsonl").read_text().splitlines()) == 2


def test_rewind_keeps_scores_that_eval_made(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for by in ("train", "eval"):
        folder.append_metrics({"step": 4, "by": by})
    folder.rewind(4, scored=False)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 4, "by": "eval"}\n'
    folder.rewind(3)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == ""


def test_a_line_that_does_not_fit_is_not_written_at_all(tmp_path: Path) -> None:
    """A limit on file sizes lets the first bytes through, as a full disk does."""
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from pathlib import Path
from fastdat.util.errors import RunFolderError
from fastdat.training.run_folder import append_metrics
run = Path({str(tmp_path)!r})
append_metrics(run, {{"step": 1}})
resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
try:
    append_metrics(run, {{"step": 2, "scores": 3}})
except RunFolderError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "metrics.jsonl: File too large" in out
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'
