"""`fastdat attack`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import fastdat
from fastdat.data import ImageSet
from fastdat.robustness import MonitorConfig, layer_norms, measure
from fastdat.training.attacked import as_record, shown
from fastdat.util.monitor_names import MONITORED
from tests.commands.command_line import invoke
from tests.training.runs import scored, tiny, trainer_of

SHORT = ["-n", 8, "--steps", 2, "--cap", 3, "--device", "cpu"]


def test_all_numbers_of_a_run(run: Path) -> None:
    code, out, _ = invoke("attack", run, *SHORT)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == f"latest of {run}: G and D of step 4, 8 reals of train"
    assert lines[-1] == f"all numbers: {run / 'attack.json'}"
    assert "rejected samples of G (rms <= 0.1, 2 restarts, 2 steps)" in out
    assert "flip within 3 (step 0.007843)" in out
    shares = [
        100 * json.loads((run / "attack.json").read_text())["numbers"][f"penalty_case_{s}"]
        for s in ("real", "fake")
    ]
    assert f"penalty case of Eq. (13)  {shares[0]:.1f} % of the reals, {shares[1]:.1f} % of the fakes" in out
    record = json.loads((run / "attack.json").read_text())
    assert set(record["numbers"]) <= set(MONITORED)
    assert (record["step"], record["weights"], record["settings"]["samples"]) == (4, "G", 8)
    assert record["machine"]["torch"] == torch.__version__
    assert "id" in record["commit"]
    _, D = fastdat.load(run)
    assert record["layers"] == pytest.approx(layer_norms(D))
    for side in ("real", "fake"):
        of_side = record["pgd_steps"][side]
        assert len(of_side) == record["eligible"][f"pgd_{side}"]
        capped = [3 if steps is None else steps for steps in of_side]
        if capped:
            assert record["numbers"][f"pgd_steps_{side}"] == pytest.approx(sum(capped) / len(capped))
    assert str(run) not in json.dumps(record), "no paths"


def test_settings_reach_the_measurements(run: Path, tmp_path: Path) -> None:
    def numbers(*options: Any) -> dict[str, Any]:
        file = tmp_path / "new" / "mine.json"
        assert invoke("attack", run, *SHORT, "--json", file, *options)[0] == 0
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    first = numbers()
    assert numbers() == first
    assert not (run / "attack.json").exists()
    other = numbers("--seed", 1)
    assert other["numbers"]["lipschitz_real_mean"] != first["numbers"]["lipschitz_real_mean"]
    test = numbers("--split", "test", "--norm", "linf", "--radius", 0.2, "--restarts", 1, "--step-size", 0.5)
    assert test["split"] == "test"
    assert test["numbers"]["lipschitz_real_mean"] != first["numbers"]["lipschitz_real_mean"]
    expected = {"norm": "linf", "radius": 0.2, "restarts": 1, "step_size": 0.5}
    assert {key: test["settings"][key] for key in expected} == expected


def test_of_a_checkpoint_file_they_are_printed(run: Path, tmp_path: Path) -> None:
    before = set(run.rglob("*"))
    code, out, _ = invoke("attack", run / "checkpoints" / "best.pt", *SHORT)
    assert code == 0
    assert "all numbers" not in out
    assert set(run.rglob("*")) == before


def test_conditional_nets_the_average_and_points(
    few_images: ImageSet, cifar10_root: Path, tmp_path: Path
) -> None:
    trainer_of(scored(cifar10_root, "csngan-dat-cifar10", ema=0.9), few_images, tmp_path / "c").train()
    assert invoke("attack", tmp_path / "c", *SHORT)[0] == 0
    of_average = invoke("attack", tmp_path / "c", *SHORT, "--ema")[1]
    assert "ema and D of step 4" in of_average
    trainer_of(tiny("mlp-dat-gaussians"), None, tmp_path / "points").train()
    code, out, _ = invoke("attack", tmp_path / "points", *SHORT)
    assert (code, out.splitlines()[0]) == (0, f"latest of {tmp_path / 'points'}: G and D of step 4, 8 reals")
    assert json.loads((tmp_path / "points" / "attack.json").read_text())["split"] is None
    code, _, err = invoke("attack", tmp_path / "points", *SHORT, "--split", "test")
    assert code == 2
    assert "points of gaussians are drawn: there is no test split of them" in " ".join(err.split())


def test_mistakes(run: Path, tmp_path: Path) -> None:
    def message(*arguments: object) -> str:
        code, out, err = invoke("attack", *arguments)
        assert (code, out) == (2, "")
        assert "Traceback" not in err
        return " ".join(err.replace("│", " ").split())

    assert "is no run folder" in message(tmp_path)
    assert "has no best checkpoint" in message(run, "--checkpoint", delete(run / "checkpoints" / "best.pt"))
    assert "images; got -n 60,000. Give at most as many" in message(run, "-n", 60_000)
    assert "should be greater than or equal to 1" in message(run, "-n", 0)
    assert "must be train or test; got both" in message(run, "--split", "both")
    assert " --norm must be one of rms, linf, l2; got 'l7'" in message(run, "--norm", "l7")
    assert " --radius must be a finite number > 0; got -1.0" in message(run, "--radius", -1)
    assert " --step-size must be a finite number > 0; got 0.0" in message(run, "--step-size", 0)
    assert "has no running average of G (its setting ema is 0): leave --ema out" in message(
        run, "--ema", *SHORT
    )
    assert "does not exist" in message(run, "--data", tmp_path / "nowhere", *SHORT)
    (tmp_path / "file").write_text("")
    assert "cannot write" in " ".join(
        invoke("attack", run, *SHORT, "--json", tmp_path / "file" / "a.json")[2].split()
    )


def delete(path: Path) -> str:
    path.unlink()
    return path.stem


def test_a_discriminator_whose_logits_overflow_has_no_verdict() -> None:
    G, D = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)
    with torch.no_grad():
        D.weight.fill_(float("inf"))
    settings = MonitorConfig(samples=5)
    record = as_record(measure(G, D, (torch.randn(5, 2),), (torch.randn(5, 3),), settings), settings)
    assert json.loads(json.dumps(record, allow_nan=False))["layers"] == {"": None}
    lines = list(shown(record))
    assert lines[0] == "D's mean logits are not finite, so that it has no verdict to change"
    assert lines[-1] == "penalty case of Eq. (13)  none of the reals, none of the fakes"
