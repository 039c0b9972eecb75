"""`fastdat export`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import safetensors.torch

from tests.commands.command_line import invoke
from tests.training.runs import latest


def test_files_are_written(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "g.safetensors"
    code, out, _ = invoke("export", run, "--safetensors", path, "--pt2", tmp_path / "g.pt2")
    assert code == 0
    first, second = out.splitlines()
    assert first.startswith(f"{path}: G of step 4, ")
    assert second.startswith(f"{tmp_path / 'g.pt2'}: G of step 4, ")
    saved, found = latest(run)["netG"], safetensors.torch.load_file(path)
    assert found.keys() == saved.keys()
    assert all((found[name] == saved[name]).all() for name in saved)


def test_mistakes(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def message(*arguments: object) -> str:
        code, out, err = invoke("export", *arguments)
        assert (code, out) == (2, "")
        return " ".join(err.replace("│", " ").split())

    assert "give at least one of them, with the file to write" in message(run)
    assert "is no run folder" in message(tmp_path, "--pt2", tmp_path / "g.pt2")
    assert "has no best checkpoint" in message(
        tmp_path / "run", "--checkpoint", delete(run / "checkpoints" / "best.pt"), "--pt2", "g.pt2"
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    expected = 'error: this command needs onnxruntime: pip install "fastdat[export]"'
    assert message(run, "--onnx", tmp_path / "g.onnx") == expected


def delete(path: Path) -> str:
    path.unlink()
    return path.stem
