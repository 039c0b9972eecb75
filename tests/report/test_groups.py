"""Which runs repeat one training with other seeds."""

import re
from pathlib import Path
from typing import Any

import pytest

from fastdat.report.groups import differing_settings, group_runs
from fastdat.report.runs import RunRecord, read_runs
from fastdat.training import preset
from fastdat.util.free_settings import FREE
from tests.environment import REPOSITORY
from tests.report.runs import make_run


def runs(folder: Path, *configs: dict[str, Any], names: tuple[str, ...] = ()) -> list[RunRecord]:
    labels = names or [f"run-{number}" for number in range(len(configs))]
    paths = [
        make_run(folder / label, config=config, steps=0, grids=0)
        for label, config in zip(labels, configs, strict=True)
    ]
    return read_runs(paths)


def test_settings_without_effect_are_settings() -> None:
    assert preset("sngan-dat-cifar10").to_dict().keys() > FREE


def test_the_docs_name_all_of_them() -> None:
    words = (REPOSITORY / "docs/resume_and_folders.md").read_text()
    sentence = words.split("how often may change: ")[1].split(". Other")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == FREE


def test_runs_that_differ_in_the_seed_are_one_group(tmp_path: Path) -> None:
    dat = preset("sngan-dat-cifar10").to_dict()["dat"]
    found = group_runs(
        runs(
            tmp_path,
            {"seed": 0},
            {"seed": 0, "dat": dat | {"eps": 2.0}},
            {"seed": 1, "data": "/elsewhere", "device": "cpu", "log_every": 7, "eval": {"fakes": 3}},
            {"seed": 5, "dat": dat | {"eps": 2.0}},
            names=("a-0", "b-0", "a-1", "b-1"),
        )
    )
    assert [(group.title, group.members) for group in found] == [
        ("a (2 seeds)", [0, 2]),
        ("b (2 seeds)", [1, 3]),
    ]


@pytest.mark.parametrize(
    ("change", "one_group"),
    [
        ({}, True),
        ({"steps": 50}, False),  # lr_decay is linear: the learning rates differ
        ({"steps": 50, "lr_decay": "none"}, False),
        ({"checkpoints": {"every": 3}}, True),
        ({"batch_size": 32}, False),
        ({"precision": "bf16"}, False),
        ({"cudnn_benchmark": True}, True),
        ({"init_from": "runs/other"}, False),
        ({"a_later_setting": None}, True),
        ({"a_later_setting": "none"}, True),
        ({"a_later_setting": "all"}, False),
        ({"model": None}, False),
    ],
)
def test_changes_that_make_another_group(tmp_path: Path, change: dict[str, Any], one_group: bool) -> None:
    assert (len(group_runs(runs(tmp_path, {"seed": 0}, {"seed": 1} | change))) == 1) is one_group


def test_steps_have_no_effect_on_constant_learning_rates(tmp_path: Path) -> None:
    constant = {"lr_decay": "none"}
    assert len(group_runs(runs(tmp_path, constant, constant | {"steps": 50, "seed": 1}))) == 1


def test_folders_of_images_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    folders = [
        {"dataset": "folder", "data": name, "seed": i} for i, name in enumerate(("cats", "dogs", "cats"))
    ]
    assert [group.members for group in group_runs(runs(tmp_path, *folders))] == [[0, 2], [1]]


def test_own_nets_are_never_grouped(tmp_path: Path) -> None:
    """config.yaml does not say what nets they are."""
    own = {"model": None, "dataset": None}
    assert len(group_runs(runs(tmp_path, own, own | {"seed": 1}))) == 2


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (("dcgan-0", "dcgan-1"), "dcgan"),
        (("dcgan-dat-10", "dcgan-dat-11"), "dcgan-dat"),
        (("dcgan_seed3", "dcgan_seed4"), "dcgan"),
        (("dcgan-s=3", "dcgan-s=4"), "dcgan"),
        (("cifar10-a", "cifar10-b"), "cifar10"),
        (("run", "run2"), "run, run2"),  # "run" is the name of one of them
        (("first", "again"), "first, again"),
        (("sn", "ss"), "sn, ss"),
        (("baseline", "best"), "baseline, best"),
        (("sn-baseline", "sn-best"), "sn"),
        (("p1", "pts"), "p1, pts"),
    ],
)
def test_label_of_a_group(tmp_path: Path, names: tuple[str, str], label: str) -> None:
    (group,) = group_runs(runs(tmp_path, {"seed": 0}, {"seed": 1}, names=names))
    assert (group.label, group.title) == (label, f"{label} (2 seeds)")


def test_equal_labels_of_two_groups_are_spelt_out(tmp_path: Path) -> None:
    configs = [{"seed": i, "batch_size": size} for i, size in ((0, 64), (1, 64), (2, 32), (3, 32), (4, 16))]
    found = group_runs(runs(tmp_path, *configs))
    assert [group.title for group in found] == ["run-0, run-1 (2 seeds)", "run-2, run-3 (2 seeds)", "run-4"]


def test_repetitions_with_the_same_seed_are_not_counted_as_seeds(tmp_path: Path) -> None:
    (group,) = group_runs(runs(tmp_path, {"seed": 0}, {"seed": 0}))
    assert group.title == "run (2 runs)"


def test_settings_that_differ(tmp_path: Path) -> None:
    dat = preset("sngan-dat-cifar10").to_dict()["dat"]
    first, second = runs(
        tmp_path, {"seed": 0}, {"seed": 1, "data": "x", "dat": dat | {"real": False}, "lr": 1.0}
    )
    assert differing_settings([first, second]) == ["dat.real", "lr"]
