"""Copies of nets that keep what they have computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastdat.nets.deep_copy import deep_copy
from fastdat.nets.grouped_probe import check_in_groups
from fastdat.nets.pass_memory import activation_bytes


@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated")
def test_layers_that_hold_their_last_weight() -> None:
    layer = nn.utils.weight_norm(nn.Linear(3, 4))
    x = torch.randn(6, 3)
    assert not layer.weight.is_leaf
    copied = deep_copy(layer)
    torch.testing.assert_close(copied(x), layer(x))
    with torch.no_grad():
        layer.weight_g.mul_(2)
    assert not torch.equal(copied(x), layer(x)), "it is its own"
    check_in_groups(layer, x)
    assert activation_bytes(layer, x) > 0
