"""Nets by name."""

from __future__ import annotations

import torch
from torch import Tensor

from fastdat.training import PRESETS, build_nets
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
