"""Settings in YAML files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastdat.training import ConfigError, TrainConfig
from fastdat.training.config_file import read_settings, with_absolute_paths


def read(folder: Path, text: str) -> dict[str, Any]:
    (folder / "mine.yaml").write_text(text)
    return read_settings(folder / "mine.yaml")


def test_numbers_are_read_as_set_reads_them(tmp_path: Path) -> None:
    """PyYAML alone reads 1e-4 as text."""
    settings = read(tmp_path, "lr: 1e-4\ndat: {eps: 5E-1}\nbetas: [.5e0, 0.999]\neval.fakes: 10\nmodel: e5\n")
    assert settings == {
        "lr": 1e-4,
        "dat": {"eps": 0.5},
        "betas": [0.5, 0.999],
        "eval.fakes": 10,
        "model": "e5",
    }
    assert TrainConfig().replace(settings | {"model": "sngan"}).dat.eps == 0.5


def test_relative_paths_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    folder = tmp_path / "configs"
    folder.mkdir()
    settings = read(folder, "data: ../sets/cifar\ninit_from: ~/best.pt\neval: {weights: w.pth}\n")
    assert settings == {
        "data": f"{tmp_path}/sets/cifar",
        "init_from": "/home/me/best.pt",
        "eval": {"weights": f"{folder}/w.pth"},
    }
    assert read(folder, "eval.weights: w.pth\ndata: /a/b\ndat.eps: 2") == {
        "eval.weights": f"{folder}/w.pth",
        "data": "/a/b",
        "dat.eps": 2,
    }
    assert read(folder, "data: null\n") == {"data": None}


def test_paths_of_a_configuration_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = with_absolute_paths(TrainConfig(data="sets/cifar").replace({"eval.weights": "../w.pth"}))
    assert config.data == f"{tmp_path}/sets/cifar"
    assert config.eval.weights == f"{tmp_path.parent}/w.pth"
    assert config.init_from is None
    assert with_absolute_paths(config) == config


def test_a_run_folder_stands_for_its_file(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("steps: 7\n")
    assert read_settings(tmp_path) == {"steps": 7}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold settings as lines of key: value, for example lr: 1e-4; it holds nothing"),
        ("- lr\n", "it holds a list"),
        ("7: 8\n", "it holds a dict"),
        ("lr: [1\n", "is not YAML: "),
        ("a: !!python/object/apply:os.system [echo]\n", "is not YAML: "),
        ("lr: \xff", "cannot be read: "),
    ],
)
def test_other_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=rf"mine\.yaml .*{message}"):
        read_settings(tmp_path / "mine.yaml")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no file .*config\.yaml\. Give a YAML file of settings"):
        read_settings(tmp_path)
