"""Nets by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastdat.training import PRESETS, ConfigError, build_nets
from tests.training.runs import tiny


def test_weights_are_a_function_of_the_seed() -> None:
    def first(seed: int) -> Tensor:
        return build_nets(tiny(seed=seed))[0].get_parameter("linear.weight")

    torch.manual_seed(5)
    a = first(0)
    torch.manual_seed(6)
    assert torch.equal(a, first(0))
    assert not torch.equal(a, first(1))


def test_every_preset_can_be_built() -> None:
    for name, config in PRESETS.items():
        classes = 3 if name in ("csngan-folder", "csngan-dat-folder") else None
        for net in build_nets(config.replace({"ngf": 16, "ndf": 16, "classes": classes})):
            assert any(True for _ in net.parameters()), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": "sngan", "dataset": "mnist"},
            "model sngan cannot model images with 1 channel, which mnist has; use one of dcgan",
        ),
        (
            {"model": "mlp", "dataset": "stl10"},
            "model mlp cannot model images with 3 channels, which stl10 has; use one of sngan, ssgan, infomaxgan, "
            "dcgan, table3, r3gan, csngan",
        ),
        (
            {"model": "dcgan", "dataset": "gaussians"},
            "model dcgan cannot model 2-D points, which gaussians has; use one of mlp",
        ),
        (
            {"classes": 10},
            "classes=10 would have no effect: model sngan takes no labels. Leave it out, or use csngan",
        ),
        (
            {"model": "mlp", "dataset": "gaussians", "augment": "color", "regularizers": [{"name": "bcr"}]},
            "augment and the regularizer bcr would change images, and gaussians has points: leave it out",
        ),
        (
            {"model": "mlp", "dataset": "gaussians", "flip": True},
            "flip would change images, and gaussians has points: leave it out",
        ),
        (
            {"model": "csngan", "dataset": "folder"},
            "model csngan needs the number of classes, which only the images of a folder tell: set classes",
        ),
        ({"model": "csngan", "classes": 7}, "got classes=7, but cifar10 has 10: leave classes out"),
        (
            {"model": "csngan", "dataset": "stl10"},
            "model csngan needs labels, but stl10 has none; use one of cifar10, cifar100, tiny-imagenet, mnist, "
            "folder",
        ),
        (
            {"dataset": None},
            "no dataset is set. There are: cifar10, cifar100, stl10, tiny-imagenet, lsun-bedroom, mnist, folder, "
            "gaussians, gaussians-imbalanced, ring, grid",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_a_model_that_does_not_fit_the_data_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build_nets(tiny(**changes))
    assert str(refused.value) == message
