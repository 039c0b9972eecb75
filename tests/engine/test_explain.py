"""Why D failed, where one sees it in the batch. Other devices stand in for a GPU here."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastdat.engine.explain import explained

D = nn.Linear(4, 1)
X, Y = torch.rand(3, 4), torch.rand(3)
FAR = torch.rand(3, device="meta")


def test_an_argument_on_another_device() -> None:
    says = r"args_fake\[1\] is on meta and xf on cpu: move it with \.to\('cpu'\) \(two devices\)"
    with pytest.raises(ValueError, match=says), explained(D, {"weight": D.weight}, X, (Y, FAR), "fake"):
        raise RuntimeError("two devices")


def test_a_buffer_on_another_device() -> None:
    tensors = {"weight": D.weight, "mean": FAR, "scale": torch.ones((), device="meta")}
    with (
        pytest.raises(ValueError, match=r"D's 'mean' is on meta and xr on cpu: .*D.to\('cpu'\)"),
        explained(D, tensors, X, (), "real"),
    ):
        raise RuntimeError("two devices")


@pytest.mark.parametrize("error", [RuntimeError, IndexError, TypeError, ValueError])
def test_what_is_not_known_comes_through_as_it_is(error: type[Exception]) -> None:
    given = error("of D")
    with pytest.raises(error) as caught, explained(D, {"weight": D.weight}, X, (), "real"):
        raise given
    assert caught.value is given
