"""Bytes that one more sample needs in a forward pass, against counts by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fastdat.nets.pass_memory import activation_bytes


class Branches(nn.Module):
    """z (N, 4) -> (N, 2): both branches are alive when the second one ends."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow, self.out = nn.Linear(4, 100), nn.Linear(4, 30), nn.Linear(30, 2)

    def forward(self, z: Tensor) -> Tensor:
        wide = self.wide(z)
        narrow = self.narrow(z)
        out: Tensor = self.out(narrow)
        return out + wide.view(len(z), 50, 2)[:, 0]  # a view takes nothing


@pytest.mark.parametrize(
    ("net", "values"),
    [
        # Each layer's input is dropped when its output is there; z itself is not counted.
        (nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 6)), 10 + 10),
        (nn.Sequential(nn.Linear(4, 10), nn.Linear(10, 600), nn.Linear(600, 6)), 600 + 10),
        (nn.Sequential(nn.Linear(4, 10), nn.ReLU(inplace=True), nn.Linear(10, 6)), 10 + 6),
        (Branches(), 100 + 30 + 2 + 2),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_most_at_one_time(net: nn.Module, values: int, dtype: torch.dtype) -> None:
    z = torch.randn(6, 4, dtype=dtype)
    assert activation_bytes(net.to(dtype), z) == values * dtype.itemsize


def test_the_net_and_the_random_numbers_stay() -> None:
    net = nn.Sequential(nn.Linear(4, 10), nn.BatchNorm1d(10), nn.Dropout())
    state, numbers = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    activation_bytes(net, torch.zeros(4, 4))
    assert torch.equal(torch.get_rng_state(), numbers)
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.parametrize("shapes", [(), ((3, 4),), ((4, 4), (2,))])
def test_uneven_rows_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="example inputs must have the same even number of rows; got shapes"):
        activation_bytes(nn.Linear(4, 2), *map(torch.zeros, shapes))
