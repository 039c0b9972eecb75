"""The protocol of the evidence: docs/evidence.md says what the code trains, and arms differ in what they should."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fastdat.experiments.evidence import protocol, ring_and_grid
from fastdat.experiments.evidence.curve_study import CurveStudy
from fastdat.experiments.evidence.protocol import (
    BOTH,
    DAT,
    DCGAN,
    LP,
    NONE,
    PENALTIES,
    RATES,
    SECOND,
    STRENGTH,
)
from fastdat.experiments.images.image_study import slug
from fastdat.experiments.points.ensemble import Recipe
from fastdat.metrics.extractors import EFFICIENTNET
from fastdat.training import TrainConfig
from tests.environment import REPOSITORY

STUDIES = protocol.STUDIES
WORDS = (REPOSITORY / "docs/evidence.md").read_text()


def rows() -> dict[str, list[str]]:
    """The table of docs/evidence.md: command -> nets, arms, seeds, steps."""
    lines = re.findall(r"^\| `(evidence[\w-]*)` \|(.*)\|$", WORDS, re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in lines}


def configs(study: CurveStudy) -> dict[str, TrainConfig]:
    return {arm.name: arm.config for group in study.groups for arm in group.arms}


def test_the_table_has_all_studies() -> None:
    assert set(rows()) == {*(study.name for study in STUDIES), "evidence-points"}


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_the_table_says_what_is_trained(study: CurveStudy) -> None:
    nets, arms, seeds, steps = rows()[study.name]
    every = configs(study)
    first = next(iter(every.values()))
    assert nets.startswith((first.model or "").upper())
    assert first.loss in re.findall(r"\w+", nets)
    assert int(seeds) == study.seeds
    assert {int(steps.replace(",", ""))} == {config.steps for config in every.values()}
    if study.sweep is None:
        assert arms.split(", ") == list(every)


def test_the_table_has_the_settings_of_the_sweeps() -> None:
    rates = rows()["evidence-rates"][1]
    assert [float(x) for x in re.findall(r"\de-\d", rates)] == list(protocol.LRS)
    levels = rows()["evidence-strength"][1].partition("eps ")[2]
    assert [float(x) for x in levels.split(", ")] == list(protocol.LEVELS)


def test_the_table_says_what_is_trained_on_points() -> None:
    nets, arms, seeds, steps = rows()["evidence-points"]
    assert nets == f"MLP of Fig. 3, loss {Recipe().loss}"
    assert arms.split(", ") == list(ring_and_grid.ARMS)
    assert (int(seeds), int(steps.replace(",", ""))) == (ring_and_grid.SEEDS, ring_and_grid.ITERATIONS)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_all_runs_are_scored_as_the_protocol_says(study: CurveStudy) -> None:
    for config in configs(study).values():
        scored = config.eval
        assert (scored.extractor, scored.fakes, scored.reals) == (EFFICIENTNET, 1_000, 2_000)
        assert scored.every is not None
        assert scored.every * 10 == config.steps
        assert (scored.metrics, scored.splits) == (("kid",), ("train",))
        assert (config.ngf, config.ndf, config.ema, config.batch_size) == (16, 16, 0.99, 64)
        assert config.dataset == "cifar10"
    assert "decay 0.99 a step" in WORDS
    assert "1,000 fakes against 2,000 training images" in WORDS
    assert "ngf = ndf = 16" in WORDS


def test_arms_differ_from_no_attack_in_what_their_names_say() -> None:
    every = configs(DCGAN)
    base = every[NONE].to_dict()

    def changed(name: str) -> dict[str, Any]:
        found = every[name].to_dict()
        return {key: value for key, value in found.items() if value != base[key]}

    penalties = [{"name": "r1", "gamma": 0.2, "every": 1}, {"name": "r2", "gamma": 0.2, "every": 1}]
    assert set(changed(DAT)) == {"dat"}
    assert {k for k, v in changed(DAT)["dat"].items() if v != base["dat"][k]} == {"real", "fake"}
    assert changed(SECOND) == {"dat": changed(DAT)["dat"] | {"second_order": True}}
    assert changed(PENALTIES) == {"regularizers": penalties}
    assert changed(BOTH) == changed(DAT) | changed(PENALTIES)
    assert set(changed(LP)) == {"regularizers"}
    assert changed(LP)["regularizers"][0] == {"name": "lp", "weight": 10.0, "every": 1, "target": 1.0}
    assert not every[NONE].dat.attacks


def test_a_sweep_names_its_arms_in_the_order_of_their_settings() -> None:
    for study, read in ((RATES, "lr"), (STRENGTH, "eps")):
        assert study.sweep is not None
        every = configs(study)
        for name, line in study.sweep.lines.items():
            for x, arm in line:
                config = every[arm]
                assert (config.lr if read == "lr" else config.dat.eps) == x
                assert config.dat.attacks == (name != NONE)
                assert config.dat.second_order == (name == SECOND)


def test_each_rate_is_compared_with_its_own_base() -> None:
    for group, lr in zip(RATES.groups, protocol.LRS, strict=True):
        assert [arm.config.lr for arm in group.arms] == [lr, lr]
        assert group.base == group.arms[0].name
        assert [group.label(arm.name) for arm in group.arms] == [NONE, DAT]


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_names_and_files_of_arms_differ(study: CurveStudy) -> None:
    names = [arm.name for group in study.groups for arm in group.arms]
    assert len({slug(name) for name in names}) == len(names)
    assert all(group.base in names for group in study.groups)
