"""Reading the files of a run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastdat.util.errors import RunFolderError
from fastdat.util.run_layout import read_config, read_records, sample_file, sample_grids


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\x00"])
def test_a_damaged_configuration_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(RunFolderError, match=r"config.yaml (cannot be read|must hold settings)"):
        read_config(tmp_path)


def test_a_folder_without_a_configuration_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"is no run folder: it has no config.yaml. Give a folder that"):
        read_config(tmp_path)


def test_records_are_read_without_an_unfinished_last_line(tmp_path: Path) -> None:
    path = tmp_path / "stats.jsonl"
    assert list(read_records(path)) == []
    path.write_text('{"step": 4, "lr": 1}\n\n{"step": 2}\n{"step": 5, "l')
    assert [record for _, record in read_records(path)] == [{"step": 4, "lr": 1}, {"step": 2}]
    assert [line for line, _ in read_records(path)] == [b'{"step": 4, "lr": 1}', b'{"step": 2}']


@pytest.mark.parametrize("line", ["rubbish", "[2]", "{}", '{"step": true}', '{"step": -1}', '{"step": "3"}'])
def test_a_damaged_line_is_an_error(line: str, tmp_path: Path) -> None:
    path = tmp_path / "stats.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(RunFolderError, match=r"stats.jsonl, line 2, is damaged: .* remove the line"):
        list(read_records(path))


def test_sample_grids_are_found_by_step(tmp_path: Path) -> None:
    assert sample_grids(tmp_path) == []
    (tmp_path / "samples").mkdir()
    for step in (1_000_000, 20):
        (tmp_path / sample_file(step)).write_bytes(b"")
    (tmp_path / "samples" / "step-000020 (copy).png").write_bytes(b"")
    assert [(step, path.name) for step, path in sample_grids(tmp_path)] == [
        (20, "step-000020.png"),
        (1_000_000, "step-1000000.png"),
    ]
