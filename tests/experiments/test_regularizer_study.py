"""``fastdat reproduce regularizers``, from its options to its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from fastdat.cli import app
from fastdat.experiments.points import mixture_study, regularizer_outputs, regularizer_study
from fastdat.experiments.points.ensemble import Recipe
from fastdat.experiments.points.mixture_study import run_study
from fastdat.experiments.points.regularizer_study import ARMS, QUICK, RegularizersConfig, run
from fastdat.util.errors import ConfigError, NonFiniteError, RunFolderError

TINY: dict[str, Any] = {"iterations": 3, "seeds": 2, "compile": False, "device": "cpu"}


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that one run of all arms with both losses has written."""
    outdir = tmp_path_factory.mktemp("regularizers") / "new"
    run(RegularizersConfig(**TINY), outdir)
    return outdir


def test_json(tiny_run: Path) -> None:
    found = json.loads((tiny_run / "regularizers.json").read_text())
    assert "paper has no table" in found["note"]
    assert list(found["losses"]) == ["gan", "wgan"]
    for loss, record in found["losses"].items():
        assert record["config"]["recipe"]["loss"] == loss
        assert record["config"]["iterations"] == 3
        assert record["machine"]["torch"] == torch.__version__
        assert set(record["commit"])
        assert list(record["arms"]) == list(ARMS)
        for arm in record["arms"].values():
            assert arm["attack"]["bounds"] is None
            assert [m["iteration"] for m in arm["measurements"]] == [1, 2, 3]
            assert len(arm["measurements"][-1]["imbalanced"]["modes"]["values"]) == 2
    arms = found["losses"]["wgan"]["arms"]
    assert arms["DAT + 0-GP both 0.1"]["regularizers"] == [
        {"name": "0gp", "at": "both", "weight": 0.1, "every": 1}
    ]
    assert [t["name"] for t in arms["aR1 + aR2 100"]["regularizers"]] == ["ar1", "ar2"]
    assert arms["ALP 10"]["regularizers"][0]["lengths"] == [0.01, 1.0]
    kinds = {name: arm["attack"]["kind"] for name, arm in arms.items()}
    assert (kinds["ASGAN"], kinds["RobGAN"], kinds["DATT"]) == ("ASGAN", "RobGAN", "DATConfig")
    assert arms["none"]["measurements"] != arms["GP 10"]["measurements"]
    assert arms["GP 10"]["measurements"] != found["losses"]["gan"]["arms"]["GP 10"]["measurements"]


def test_table_shows_the_means_of_the_json(tiny_run: Path) -> None:
    files = sorted(path.name for path in tiny_run.iterdir() if path.is_file())
    assert files == ["regularizers.json", "regularizers.md"]
    record = json.loads((tiny_run / "regularizers.json").read_text())["losses"]["wgan"]["arms"]
    text = (tiny_run / "regularizers.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.split("## wgan")[1].splitlines()[4:]]
    assert [row[0] for row in rows] == list(ARMS)
    for row in rows:
        last = record[row[0]]["measurements"][-1]
        cells = [
            f"{last[mixture][what]['mean']:{form}}"
            for mixture in ("balanced", "imbalanced")
            for what, form in (("modes", ".1f"), ("high_quality", ".2f"), ("kl", ".2f"))
        ]
        assert row[1:7] == cells
    assert {row[0]: row[7] for row in rows if row[0] in QUICK} == {
        "none": "3",
        "DAT": "5",
        "0-GP both 0.1": "6",
        "DAT + 0-GP both 0.1": "7",
    }


def test_same_config_gives_the_same_numbers(tiny_run: Path, tmp_path: Path) -> None:
    run(RegularizersConfig(**TINY, losses=("wgan",), quick=True), tmp_path)
    again, before = (
        json.loads((path / "regularizers.json").read_text())["losses"]["wgan"]["arms"]
        for path in (tmp_path, tiny_run)
    )
    assert tuple(again) == QUICK
    for name in QUICK:
        assert again[name]["measurements"] == before[name]["measurements"]


def test_a_loss_that_fails_leaves_the_one_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = regularizer_study.run_study

    def fails_with_wgan(study: Any, *args: Any) -> Any:
        if study.recipe.loss == "wgan":
            raise NonFiniteError("DAT: G gives NaN")
        return real(study, *args)

    monkeypatch.setattr(regularizer_study, "run_study", fails_with_wgan)
    with pytest.raises(NonFiniteError):
        run(RegularizersConfig(**{**TINY, "iterations": 1, "quick": True}), tmp_path)
    assert list(json.loads((tmp_path / "regularizers.json").read_text())["losses"]) == ["gan"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"iterations": 0}, "iterations must be an integer >= 1"),
        ({"seeds": -1}, "seeds must be an integer >= 1; got -1"),
        ({"losses": ("gan", "wgen")}, "losses must be different names of hinge.*got gan, wgen"),
        ({"losses": ("gan", "gan")}, "losses must be different names.*got gan, gan"),
        ({"losses": ()}, "losses must be a list .* got \\(\\)"),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda"),
    ],
)
def test_bad_config(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RegularizersConfig(**setting)


def test_outdir_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunFolderError, match="taken"):
        run(RegularizersConfig(**TINY), tmp_path / "taken")


@pytest.mark.slow
def test_more_arms_than_torch_keeps_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """All arms' steps are graphs of one function, of which torch keeps only some."""
    (study,) = RegularizersConfig(iterations=1, seeds=1, losses=("wgan",), quick=True).studies
    study = replace(study, recipe=Recipe(hidden=4, layers=1, batch_size=4), mixtures=study.mixtures[:1])
    monkeypatch.setattr(mixture_study, "MEASURED", 10)
    with torch._dynamo.config.patch(recompile_limit=2):
        result = run_study(study, torch.device("cpu"), compile=True)
    assert [arm.name for arm in result.arms] == list(QUICK)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RegularizersConfig, Path]]:
    """The runs that the command asks for; none is carried out."""
    made: list[tuple[RegularizersConfig, Path]] = []
    monkeypatch.setattr(regularizer_study, "run", lambda *args: made.append(args))
    return made


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["--quick"], {"quick": True, "seeds": 2}),
        (["--quick", "--seeds", "5"], {"quick": True, "seeds": 5}),
        (["--iterations", "50", "--no-compile"], {"iterations": 50, "compile": False}),
        (["--device", "cpu"], {"device": "cpu"}),
        (["--loss", "rpgan", "--loss", "hinge"], {"losses": ("rpgan", "hinge")}),
    ],
)  # fmt: skip
def test_options(arguments: list[str], expected: dict[str, Any], calls: list[Any], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["reproduce", "regularizers", "--outdir", str(tmp_path), *arguments])
    assert result.exit_code == 0, result.output
    assert calls == [(RegularizersConfig(**expected), tmp_path)]
    assert "regularizers.md" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "seeds must be an integer >= 1"),
        (["--loss", "wgen"], "losses must be different names"),
    ],
)
def test_user_errors(arguments: list[str], message: str, calls: list[Any]) -> None:
    result = CliRunner().invoke(app, ["reproduce", "regularizers", *arguments])
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert not calls


def test_end_to_end(tmp_path: Path) -> None:
    """A loss of pairs, whose generator compares fakes with reals."""
    arguments = [
        "--quick",
        "--iterations",
        "1",
        "--seeds",
        "1",
        "--loss",
        "rpgan",
        "--no-compile",
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(app, ["reproduce", "regularizers", *arguments, "--outdir", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert regularizer_outputs.NOTE in result.output
    assert "## rpgan" in (tmp_path / "regularizers.md").read_text()
