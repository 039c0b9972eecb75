"""The protocol of the evidence: which arms, how many seeds and steps, and which scores. ``docs/evidence.md`` gives the
reasons; a test compares its table with this file.

It was committed before the runs whose results RESULTS.md shows. What is changed here makes another protocol, and runs
of the old one are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastdat.experiments.evidence.curve_figures import SweepLines
from fastdat.experiments.evidence.curve_groups import Group
from fastdat.experiments.evidence.curve_study import CurveStudy
from fastdat.experiments.images.image_study import Arm
from fastdat.experiments.images.thin_runs import WIDTH, thin
from fastdat.training.presets import preset
from fastdat.training.train_config import TrainConfig

NONE, DAT, SECOND = "no attack", "DAT", "second-order DAT"
PENALTIES, BOTH, LP = "R1 + R2", "DAT + R1 + R2", "LP"

GAMMA, LP_WEIGHT = 0.2, 10.0
"""Strengths of R1 and R2, each, and of LP."""
_R1_R2 = [{"name": "r1", "gamma": GAMMA}, {"name": "r2", "gamma": GAMMA}]
ARMS: Mapping[str, tuple[str, dict[str, Any]]] = {
    NONE: ("", {}),
    DAT: ("-dat", {}),
    SECOND: ("-dat", {"dat.second_order": True}),
    PENALTIES: ("", {"regularizers": _R1_R2}),
    BOTH: ("-dat", {"regularizers": _R1_R2}),
    LP: ("", {"regularizers": [{"name": "lp", "weight": LP_WEIGHT}]}),
}
"""What is compared: middle of the preset's name, and changes to the preset."""
LRS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3)
LEVELS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Perturbation levels eps of the sweep; that of all other studies is 1."""
SCORES = 10
"""Scores of a run, at equal distances; the last one after the last step."""
EMA = 0.99
"""Decay per G step of the average of G that is scored: without it the score moves more from step to step than the arms
differ."""


def _config(model: str, arm: str, steps: int, **changes: Any) -> TrainConfig:
    middle, settings = ARMS[arm]
    config = preset(f"{model}{middle}-cifar10")
    return thin(config, steps, ema=EMA, eval__every=steps // SCORES).replace(settings | changes)


def _arms(model: str, names: tuple[str, ...], steps: int, **changes: Any) -> tuple[Arm, ...]:
    return tuple(Arm(name, _config(model, name, steps, **changes)) for name in names)


def _rate(lr: float) -> str:
    return f"LR {lr:.0e}".replace("e-0", "e-")


def _at_rate(lr: float) -> Group:
    name = _rate(lr)
    arms = (Arm(f"{name}, {arm}", _config("dcgan", arm, 3_000, lr=lr)) for arm in (NONE, DAT))
    return Group(tuple(arms), f"{name}, {NONE}", name)


def _level(eps: float, arm: str) -> str:
    return f"eps {eps:g}, {arm}"


def _at_levels() -> Group:
    attacked = (
        Arm(_level(eps, arm), _config("dcgan", arm, 3_000, **{"dat.eps": eps}))
        for arm in (DAT, SECOND)
        for eps in LEVELS
    )
    return Group((Arm(NONE, _config("dcgan", NONE, 3_000)), *attacked), NONE)


DCGAN = CurveStudy(
    "evidence",
    f"Evidence: DCGAN on CIFAR-10, ngf = ndf = {WIDTH}",
    (Group(_arms("dcgan", tuple(ARMS), 10_000), NONE),),
    seeds=4,
)
SNGAN = CurveStudy(
    "evidence-sngan",
    f"Evidence: SNGAN on CIFAR-10, ngf = ndf = {WIDTH}",
    (Group(_arms("sngan", (NONE, DAT, SECOND), 5_000), NONE),),
    seeds=3,
)
WGAN = CurveStudy(
    "evidence-wgan",
    f"Evidence: DCGAN with the WGAN loss on CIFAR-10, ngf = ndf = {WIDTH}",
    (Group(_arms("dcgan", (NONE, DAT, PENALTIES, BOTH), 5_000, loss="wgan"), NONE),),
    seeds=3,
)
RATES = CurveStudy(
    "evidence-rates",
    f"Evidence: learning rates of DCGAN on CIFAR-10, ngf = ndf = {WIDTH}",
    tuple(map(_at_rate, LRS)),
    seeds=3,
    sweep=SweepLines(
        "learning rate", {arm: [(lr, f"{_rate(lr)}, {arm}") for lr in LRS] for arm in (NONE, DAT)}
    ),
)
STRENGTH = CurveStudy(
    "evidence-strength",
    f"Evidence: the perturbation level of DCGAN on CIFAR-10, ngf = ndf = {WIDTH}",
    (_at_levels(),),
    seeds=3,
    sweep=SweepLines(
        "perturbation level eps",
        {arm: [(eps, _level(eps, arm)) for eps in LEVELS] for arm in (DAT, SECOND)},
        NONE,
    ),
)
STUDIES = (DCGAN, SNGAN, WGAN, RATES, STRENGTH)
"""All studies of images."""
