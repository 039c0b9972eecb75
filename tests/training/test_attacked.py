"""The record that `fastdat attack` writes and the lines that it prints, of measurements made up by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdat.robustness import (
    GradientNorms,
    LatentShare,
    Measured,
    MonitorConfig,
    PenaltyCase,
    PGDFlips,
    Steepness,
)
from fastdat.training import RunFolderError
from fastdat.training.attacked import as_record, attack_run, shown

SETTINGS = MonitorConfig(
    samples=5, norm="l2", radius=0.25, restarts=3, steps=7, step_size=0.015625, cap=9, seed=2
)


def flips(side: Any, eligible: list[int], flipped: list[int], steps: list[int]) -> PGDFlips:
    masks = [torch.tensor(mask, dtype=torch.bool) for mask in (eligible, flipped)]
    return PGDFlips(side, 0.125, 0.015625, 9, *masks, torch.tensor(steps), torch.zeros(5, 2))


def measured(**changes: Any) -> Measured:
    latent = LatentShare(
        threshold=0.125,
        logits_before=torch.tensor([-1.0, 0.0, 0.125, -2.0, 3.0]),
        logits_after=torch.tensor([0.5, 0.0, 0.125, -1.0, 3.0]),
        distances=torch.zeros(5),
        latents=torch.zeros(5, 3),
        searched_below=0.125,
        norm="l2",
        radius=0.25,
        restarts=3,
        steps=7,
    )
    found: dict[str, Any] = {
        "threshold": 0.125,
        "latent": latent,
        "pgd_real": flips("real", [1, 1, 1, 1, 0], [1, 1, 0, 1, 0], [4, 2, 9, 3, 0]),
        "pgd_fake": flips("fake", [0, 1, 1, 0, 0], [0, 1, 0, 0, 0], [0, 6, 9, 0, 0]),
        "steepness": Steepness(
            real=GradientNorms(1.25, 2.5, 3.75),
            fake=GradientNorms(4.125, 5.25, 6.5),
            between=GradientNorms(7.5, 8.125, 1234567.0),
        ),
        "layers": {"body.0": 1.5, "head": 6.0},
        "penalty": PenaltyCase(real=0.875, fake=0.6),
    }
    return Measured(**found | changes)


def test_the_record() -> None:
    """Steps are those of eligible samples alone, and None where the verdict did not flip."""
    record = as_record(measured(), SETTINGS)
    assert record["settings"] == {
        "latent": True,
        "pgd": True,
        "lipschitz": True,
        "samples": 5,
        "norm": "l2",
        "radius": 0.25,
        "restarts": 3,
        "steps": 7,
        "step_size": 0.015625,
        "cap": 9,
        "seed": 2,
    }
    assert record["numbers"] == measured().numbers()
    assert record["eligible"] == {"latent": 3, "pgd_real": 4, "pgd_fake": 2}
    assert record["pgd_steps"] == {"real": [4, 2, None, 3], "fake": [6, None]}
    assert record["layers"] == {"body.0": 1.5, "head": 6.0}
    assert {"machine", "commit"} < set(record)


def test_the_lines() -> None:
    assert list(shown(as_record(measured(), SETTINGS))) == [
        "D takes a sample for real from the logit 0.125 on (midpoint of the means)",
        "adversarial examples in latent space  33.3 % of 3 rejected samples of G (l2 <= 0.25, 3 restarts, 7 steps)",
        "PGD until the verdict on fakes flips    7.50 steps; 50.0 % of 2 flip within 9 (step 0.01562)",
        "PGD until the verdict on reals flips    4.50 steps; 75.0 % of 4 flip within 9 (step 0.01562)",
        "norm of D's gradient, real           1.25       2.5      3.75   (mean, 95 %, greatest)",
        "norm of D's gradient, fake          4.125      5.25       6.5   (mean, 95 %, greatest)",
        "norm of D's gradient, between         7.5     8.125 1.235e+06   (mean, 95 %, greatest)",
        "largest singular value of a layer of D  6",
        "penalty case of Eq. (13)  87.5 % of the reals, 60.0 % of the fakes",
    ]


def test_what_was_not_measured_has_no_line() -> None:
    nothing = {"latent": None, "pgd_real": None, "pgd_fake": None}
    record = as_record(measured(steepness=None, layers=None, penalty=None, **nothing), SETTINGS)
    assert (record["eligible"], record["layers"]) == (dict.fromkeys(("latent", "pgd_real", "pgd_fake")), None)
    assert record["pgd_steps"] == {}
    assert list(shown(record)) == [
        "D takes a sample for real from the logit 0.125 on (midpoint of the means)"
    ]


def test_what_is_not_finite_is_shown_as_missing() -> None:
    """JSON knows neither NaN nor infinity. There is no mean of no sample."""
    none = flips("fake", [0] * 5, [0] * 5, [0] * 5)
    found = measured(
        threshold=math.inf,
        pgd_real=None,
        pgd_fake=none,
        layers={"body.0": 1.5, "head": math.nan},
        penalty=PenaltyCase(math.nan, 0.25),
        steepness=Steepness(*(GradientNorms(math.nan, 2.0, math.inf) for _ in range(3))),
    )
    record = as_record(found, SETTINGS)
    assert json.loads(json.dumps(record, allow_nan=False))["layers"] == {"body.0": 1.5, "head": None}
    lines = list(shown(record))
    assert lines[0] == "D's mean logits are not finite, so that it has no verdict to change"
    assert lines[2:4] == [
        "PGD until the verdict on fakes flips       - steps; none of 0 flip within 9 (step 0.01562)",
        "norm of D's gradient, real              -         2         -   (mean, 95 %, greatest)",
    ]
    assert lines[-2:] == [
        "largest singular value of a layer of D  -",
        "penalty case of Eq. (13)  none of the reals, 25.0 % of the fakes",
    ]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    """With every argument by its name, as a script may give them."""
    with pytest.raises(RunFolderError, match="is no run folder"):
        attack_run(run=tmp_path, which="latest", settings=SETTINGS, split="test", device="cpu")
