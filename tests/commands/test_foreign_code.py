"""A run folder or a file of settings may be a stranger's: code that it names is not imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fastdat.training import ConfigError
from fastdat.training.trained import load_trained
from tests.commands.command_line import invoke

NAME = "strangers_code:means"


@pytest.fixture
def foreign(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A scored run whose config.yaml names code, which can be imported."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "strangers_code.py").write_text("from tests.training.runs import means\n")
    monkeypatch.syspath_prepend(tmp_path / "code")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["eval"]["extractor"] = NAME
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    yield run
    sys.modules.pop("strangers_code", None)


def test_a_run_that_names_code_is_not_scored_with_it(foreign: Path) -> None:
    code, _, err = invoke("eval", foreign)
    assert (code, "strangers_code" in sys.modules) == (2, False)
    assert f"error: {foreign / 'config.yaml'} names code, {NAME}, and code that a file names is not" in err
    assert f"If you trust it, give --extractor {NAME} yourself" in err
    trained = load_trained(foreign, device="cpu", settings={"eval": {"fakes": 10}})
    with pytest.raises(ConfigError, match=f"config.yaml names code, {NAME}.*give eval.extractor={NAME} your"):
        trained.evaluate()
    assert len(next(trained.samples(2))) == 2
    assert invoke("sample", foreign, "--grid", foreign / "grid.png", "-n", 4)[0] == 0
    assert invoke("eval", foreign, "--extractor", "means", "--fakes", 10)[0] == 0
    assert "strangers_code" not in sys.modules


def test_code_that_the_caller_names_is_imported(foreign: Path) -> None:
    assert invoke("eval", foreign, "--extractor", NAME, "--splits", "train")[0] == 0
    settings = {"eval": {"extractor": NAME, "splits": ["train"]}}
    records = load_trained(foreign, device="cpu", settings=settings).evaluate()
    assert records is not None
    assert records[0]["extractor"] == "means"


def test_a_file_of_settings_that_names_code_trains_nothing(foreign: Path, tmp_path: Path) -> None:
    train = ("train", "--config", foreign, "--outdir", tmp_path / "new", "--device", "cpu")
    code, _, err = invoke(*train)
    assert (code, "strangers_code" in sys.modules) == (2, False)
    assert f"{foreign} names code, {NAME}, " in err
    assert f"give --set eval.extractor={NAME} yourself" in err
    assert not (tmp_path / "new").exists()
    trusted = (*train, "--set", f"eval.extractor={NAME}")
    assert invoke(*trusted)[0] == 0
    assert "strangers_code" in sys.modules
    code, out, err = invoke(*trusted)  # and again, to resume
    assert (code, "nothing to do: all 4 steps are done" in out + err) == (0, True), out + err
