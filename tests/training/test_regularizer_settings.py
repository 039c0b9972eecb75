"""Regularizers and attacks in a configuration: read, completed, checked, written back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fastdat import DATConfig
from fastdat.regularizers import ASGAN, GP, R1, RFM, LeCam, RobGAN
from fastdat.regularizers.term_registry import TERMS
from fastdat.training import ConfigError, TrainConfig, preset
from fastdat.training.config_file import with_file
from fastdat.training.regularization import Regularizers, attack_of
from fastdat.training.resume import check_resumable
from fastdat.training.train_config import parse_assignment

CPU = torch.device("cpu")
LIST: list[Any] = [{"name": "r1", "gamma": 1, "every": 16}, {"name": "lecam"}]


def test_they_are_completed_and_keep_their_order() -> None:
    config = TrainConfig(regularizers=LIST)  # type: ignore[arg-type]
    assert [dict(term) for term in config.regularizers] == [
        {"name": "r1", "gamma": 1.0, "every": 16},
        {"name": "lecam", "weight": 0.3, "decay": 0.99, "start": 1000, "every": 1},
    ]
    r1, lecam = Regularizers(config, CPU).terms
    assert r1 == R1(1.0, every=16)
    assert isinstance(lecam, LeCam)
    assert (lecam.weight, lecam.every) == (0.3, 1)


def test_two_of_one_name_may_take_part_in_different_steps() -> None:
    config = TrainConfig(regularizers=({"name": "0gp"}, {"name": "0gp", "at": "fake", "every": 4}))  # type: ignore[arg-type]
    assert [(term.name, term.every) for term in Regularizers(config, CPU).terms] == [("0gp", 1), ("0gp", 4)]


def test_python_yaml_and_set_say_the_same(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "regularizers:\n- {name: r1, gamma: 1, every: 16}\n- name: lecam\nattack: {name: robgan, steps: 3}\n"
    )
    of_file = with_file(TrainConfig(), file)
    assignments = [
        'regularizers=[{"name": "r1", "gamma": 1, "every": 16}, {"name": "lecam"}]',
        'attack={"name": "robgan", "steps": 3}',
    ]
    of_set = TrainConfig().replace(dict(map(parse_assignment, assignments)))
    in_python = TrainConfig(regularizers=(R1(1.0, every=16), LeCam()), attack={"name": "robgan", "steps": 3})  # type: ignore[arg-type]
    assert of_file == of_set == in_python
    assert hash(of_file) == hash(in_python)
    assert of_file != of_file.replace({"regularizers.r1.gamma": 2})


@pytest.mark.parametrize("name", TERMS)
def test_every_term_survives_yaml(name: str) -> None:
    needed: dict[str, Any] = {
        "rfm": {"path": "body.0"},
        "gradient_penalty": {"at": "around", "norm": "one-sided"},
    }.get(name, {})
    config = TrainConfig.from_dict({"regularizers": [{"name": name, **needed}]})
    read = TrainConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict())))
    assert read == config
    (term,) = Regularizers(read, CPU).terms
    assert (type(term), term.name) == (TERMS[name], name)


def test_a_configuration_cannot_be_changed() -> None:
    given: list[Any] = [{"name": "alp", "lengths": [0.5, 2]}]
    config = TrainConfig(regularizers=given)  # type: ignore[arg-type]
    given[0]["lengths"][0] = 99.0
    given.append({"name": "gp"})
    (alp,) = config.regularizers
    assert alp["lengths"] == (0.5, 2.0)
    with pytest.raises(TypeError):
        alp["weight"] = 3.0  # type: ignore[index]
    assert config.to_dict()["regularizers"][0]["lengths"] == [0.5, 2.0]


def test_one_setting_can_be_changed() -> None:
    config = preset("r3gan-cifar10").replace({"regularizers.r2.gamma": 0.5, "regularizers.r2.every": 4})
    assert [(dict(t)["gamma"], t["every"]) for t in config.regularizers] == [(0.05, 1), (0.5, 4)]
    attack = preset("dcgan-robgan-cifar10").replace({"attack.steps": 2, "attack.eps": 0.125}).attack
    assert attack is not None
    assert (attack["steps"], attack["eps"], attack["step"]) == (2, 0.125, 1 / 128)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regularizers": "r1"}, r"regularizers must be a list of mappings, .*\[\{name: r1.*; got 'r1'"),
        ({"regularizers": {"name": "r1"}}, "regularizers must be a list of mappings"),
        ({"regularizers": ["r1"]}, r"regularizers\[0\] must be a mapping with a name.*; got 'r1'"),
        ({"regularizers": [{"gamma": 1}]}, r"regularizers\[0\] needs the name of a regularizer"),
        (
            {"regularizers": [{"name": "r3"}]},
            r"regularizers\[0\]\.name is unknown: 'r3'. .*There are: gp, lp, r1",
        ),
        (
            {"regularizers": [{"name": "gp"}, {"name": "r1", "gamma": -1}]},
            r"regularizers\[1\]\.gamma must be a number >= 0.*; got -1",
        ),
        ({"regularizers": [{"name": "r1", "gamma": "1"}]}, r"regularizers\[0\]\.gamma must be .*; got '1'"),
        ({"regularizers": [{"name": "r1", "every": 0}]}, r"regularizers\[0\]\.every must be an integer >= 1"),
        (
            {"regularizers": [{"name": "r1", "weight": 1}]},
            r"unknown setting regularizers\[0\]\.weight. r1 has: gamma, every",
        ),
        ({"regularizers": [{"name": "rfm"}]}, r"regularizers\[0\] needs path"),
        ({"regularizers": [R1(torch.tensor(1.0))]}, r"regularizers\[0\]\.gamma is a tensor"),
        (
            {"regularizers.r1.gamma": 1},
            r"regularizers\.r1\.gamma is in nothing that is set: give regularizers",
        ),
        ({"attack.eps": 1}, r"attack\.eps is in nothing that is set: give attack as a whole"),
        ({"attack": "asgan"}, "attack must be a mapping with a name.*, or None .* for DAT; got 'asgan'"),
        (
            {"attack": {"name": "dat"}},
            "attack needs one of the names asgan, robgan.*; got .*DAT itself is set by dat",
        ),
        ({"attack": {"name": "robgan", "steps": 0}}, r"attack\.steps must be an integer >= 1; got 0"),
        (
            {"attack": {"name": "robgan", "stepz": 1}},
            r"unknown setting attack\.stepz. Did you mean step or steps\?",
        ),
        (
            {"attack": {"name": "asgan", "bounds": None}},
            r"setting attack\.bounds. Its bounds are dat\.bounds",
        ),
        (
            {"attack": {"name": "asgan"}, "dat.bounds": None},
            r"attack\.eps must be set where dat\.bounds is None",
        ),
        (
            {"attack": {"name": "asgan"}, "dat.eps": 2, "dat.steps": 3},
            r"attack: asgan takes DAT's place, so that dat\.eps, dat\.steps would have no effect",
        ),
        (
            {"attack": {"name": "asgan"}, "dat.fake": False},
            r"so that dat\.real, dat\.fake would have no effect",
        ),
        (
            {"loss": "rpgan", "dat.seed": "alg1"},
            r"dat\.seed=alg1 .* the loss rpgan compares pairs: set dat\.seed=log",
        ),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig().replace(settings)


def test_another_attack_takes_dats_place() -> None:
    """It has the bounds of the data, and nothing says that DAT attacks."""
    config = TrainConfig(attack={"name": "asgan"}, dat=DATConfig(bounds=(0.0, 1.0)))  # type: ignore[arg-type]
    assert attack_of(config) == ASGAN(bounds=(0.0, 1.0))
    assert config.dat == DATConfig(bounds=(0.0, 1.0), real=False, fake=False)
    assert attack_of(config.replace({"attack": None})) == config.dat
    points = preset("mlp-gaussians").replace({"attack": {"name": "robgan", "clean_weight": 1}})
    assert attack_of(points) == RobGAN(bounds=None, clean_weight=1.0)


def test_an_augmentation_is_around_the_d_that_has_the_path() -> None:
    config = preset("dcgan-rfm-cifar10")
    for augment, path in (("none", "convs.2"), ("diffaug", "D.convs.2")):
        assert Regularizers(config.replace({"augment": augment}), CPU).terms == (RFM(path),)


def test_moving_weights_are_tensors() -> None:
    config = TrainConfig(
        regularizers=[{"name": "r1", "gamma": 0.5}, {"name": "lecam"}],  # type: ignore[arg-type]
        ema=0.5,
    ).replace({"cosine.regularizers": 0.25})
    regularizers = Regularizers(config, CPU)
    r1, lecam = regularizers.terms
    strengths = [tensor for tensor, _ in regularizers.strengths]
    assert isinstance(r1, R1)
    assert r1.gamma is strengths[0]
    assert lecam.weight is strengths[1]
    assert [start for _, start in regularizers.strengths] == [0.5, 0.3]
    fixed = Regularizers(config.replace({"cosine.regularizers": None}), CPU)
    assert fixed.strengths == []
    assert fixed.terms[0] == R1(0.5)


def test_a_run_is_resumed_with_the_same_ones_only() -> None:
    then = TrainConfig(regularizers=LIST, attack={"name": "asgan"})  # type: ignore[arg-type]
    begun = then.recorded()
    assert check_resumable(Path("run"), begun, then, 1) == []
    for changes, difference in (
        ({"regularizers": [*LIST, GP()]}, r"regularizers \[.*lecam.*\] then, \[.*gp.*\] now"),
        ({"regularizers.lecam.decay": 0.5}, r"regularizers .*'decay': 0.99.* then, .*'decay': 0.5.* now"),
        ({"attack": None}, r"attack .*asgan.* then, None now"),
        ({"attack": {"name": "robgan"}}, r"attack .*asgan.* then, .*robgan.* now"),
        ({"attack.eps": 0.5}, r"attack.eps None then, 0.5 now"),
    ):
        with pytest.raises(ConfigError, match=difference):
            check_resumable(Path("run"), begun, then.replace(changes), 1)  # type: ignore[arg-type]


def test_other_steps_change_what_a_cosine_moves() -> None:
    then = TrainConfig(lr_decay="none").replace({"cosine.lr": 1e-5, "steps": 50})
    now = dataclasses.replace(then, steps=80)
    with pytest.raises(
        ConfigError, match=r"along a cosine over 50 steps; got steps=80.*--extend.*or steps=50"
    ):
        check_resumable(Path("run"), then.recorded(), now, 10)
    remarks = check_resumable(Path("run"), then.recorded(), now, 10, extend=True)
    assert remarks[-1] == "what the cosine moves now moves over 80 steps, no longer 50"
    kept = then.replace({"cosine.steps": 50})
    assert check_resumable(Path("run"), kept.recorded(), dataclasses.replace(kept, steps=80), 10) == [
        "steps 50 then, 80 now"
    ]
