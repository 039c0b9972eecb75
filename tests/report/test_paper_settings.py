"""How a run's settings differ from the paper's, and which attack its is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fastdat.config import DATConfig
from fastdat.report.paper_settings import (
    ATTACKS,
    DEFAULT,
    EQ10,
    RELEASED,
    SETTINGS,
    attack_sentences,
    differences,
)
from fastdat.report.runs import read_runs
from fastdat.training import preset
from fastdat.util.free_settings import FREE
from tests.report.runs import make_run


def attack_of(folder: Path, dat: DATConfig, batch: int = 64) -> list[str]:
    settings = preset("sngan-dat-cifar10").replace({"dat": dat}).to_dict()["dat"]
    (run,) = read_runs([make_run(folder, config={"dat": settings, "batch_size": batch}, grids=0)])
    return attack_sentences(run)


def test_settings_of_table_1_do_not_differ(tmp_path: Path) -> None:
    for name in ("sngan-cifar10", "ssgan-dat-tiny-imagenet", "infomaxgan-stl10"):
        path = make_run(tmp_path / name, name, config={"steps": 100_000}, steps=0, grids=0)
        (path / "stats.jsonl").write_text('{"step": 100000}\n')
        (run,) = read_runs([path])
        assert differences(run) == []


@pytest.mark.parametrize(
    ("planned", "done", "difference"),
    [
        (300_000, 300_000, "300,000 steps, the paper's are 100,000"),
        (300_000, 100_000, "300,000 steps were planned, the paper's are 100,000"),
        (100_000, 99_000, "99,000 steps, the paper's are 100,000"),
    ],
)
def test_more_steps_differ_too(planned: int, done: int, difference: str, tmp_path: Path) -> None:
    """Where more were planned, the learning rate has not fallen as far."""
    path = make_run(tmp_path, "sngan-cifar10", config={"steps": planned}, steps=0, grids=0)
    (path / "stats.jsonl").write_text(f'{{"step": {done}}}\n')
    assert differences(read_runs([path])[0]) == [difference]


def test_every_setting_that_changes_a_run_is_compared() -> None:
    """A new setting fails here until it is either compared or listed as one that does not change the result."""
    flat = {
        key if not isinstance(value, dict) else f"{key}.{inner}"
        for key, value in preset("sngan-dat-cifar10").to_dict().items()
        for inner in (value if isinstance(value, dict) else [""])
    }
    compared = {*SETTINGS, *ATTACKS[DEFAULT], "resolution", "lr_decay"}
    # Which run of which column; the models of the table have no classes.
    named = {"model", "dataset", "seed", "channels_last", "classes", "attack", "regularizers"}
    free = {key for key in flat if key.partition(".")[0] in FREE}
    assert flat - compared == named | free
    assert compared <= flat


def test_settings_that_are_unset_are_named(tmp_path: Path) -> None:
    (run,) = read_runs([make_run(tmp_path / "run", config={"init_from": "runs/first", "augment": "diffaug"})])
    assert differences(run)[:2] == [
        "init_from is runs/first, the paper's is none",
        "augment is diffaug, the paper's is none",
    ]


def test_differences(tmp_path: Path) -> None:
    changes = {"batch_size": 32, "lr_decay": "none", "n_dis": 2, "ngf": 32, "flip": True}
    (run,) = read_runs([make_run(tmp_path / "run", config=changes)])
    assert differences(run) == [
        "ngf is 32, the paper's is the full width",
        "batch_size is 32, the paper's is 64",
        "n_dis is 2, the paper's is 5",
        "flip is True, the paper's is False",
        "lr_decay is none, the paper's is linear",
        "40 steps, the paper's are 100,000",
    ]


@pytest.mark.parametrize(
    ("name", "config"), [(EQ10, DATConfig.paper()), (RELEASED, DATConfig.official()), (DEFAULT, DATConfig())]
)
def test_the_known_attacks_are_those_of_the_step(name: str, config: DATConfig, tmp_path: Path) -> None:
    expected = {f"dat.{key}": value for key, value in asdict(config).items()}
    expected["dat.bounds"] = list(expected["dat.bounds"])  # as YAML reads it
    assert dict(ATTACKS[name]) == expected
    first, *others = attack_of(tmp_path / "run", config)
    assert first == f"The attack is {name}."
    assert len(others) == 2
    assert name not in " ".join(others)


def test_the_default_is_not_called_the_papers(tmp_path: Path) -> None:
    """At batch size 64, eps / 64 is what the released code divides by."""
    assert attack_of(tmp_path / "run", DATConfig()) == [
        "The attack is fastdat's default.",
        "Unlike that of Eq. 10: dat.seed is logits instead of eq10, dat.reduction is batch instead of sample, "
        "dat.eps_batch is 64 instead of 1, dat.delta_clip is 1.0 instead of no limit.",
        "Unlike the attack of the released code: dat.clip_real is True instead of False, dat.power_iterations is once "
        "instead of per_forward.",
    ]


def test_a_divisor_is_compared_by_what_it_is_at_the_batch_size(tmp_path: Path) -> None:
    unlike = attack_of(tmp_path / "other", DATConfig(), batch=32)[-1]
    assert "dat.eps_batch is 64 instead of the batch size" in unlike
    assert attack_of(tmp_path / "same", DATConfig(eps_batch=None), batch=64)[0].endswith("fastdat's default.")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"eps": 0.6, "steps": 2}, "dat.eps is 0.6 instead of 1.0, dat.steps is 2 instead of 1"),
        ({"second_order": True}, "dat.second_order is True instead of False"),
        ({"fake": False}, "dat.fake is False instead of True"),
    ],
)
def test_an_attack_of_no_name(changes: dict[str, Any], part: str, tmp_path: Path) -> None:
    first, *others = attack_of(tmp_path / "run", DATConfig(**changes))
    assert first == "The attack is none of Eq. 10, the released code's and fastdat's default."
    assert others[-1] == f"Unlike fastdat's default: {part}."
    assert len(others) == 3


def test_a_run_without_attack_has_no_sentence(tmp_path: Path) -> None:
    (run,) = read_runs([make_run(tmp_path / "run", "sngan-cifar10", grids=0)])
    assert attack_sentences(run) == []
