"""clip_weights_ clips every parameter in place, and refuses what is no module or no limit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fastdat.regularizers import clip_weights_


def test_clips_all_parameters_in_place_and_no_buffer() -> None:
    D = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(5, 1))
    before = {name: p.detach().clone() for name, p in D.named_parameters()}
    places = {name: p.data_ptr() for name, p in D.named_parameters()}
    assert any(p.abs().max() > 0.02 for p in before.values())
    assert clip_weights_(D, 0.02) is None  # type: ignore[func-returns-value]
    for name, p in D.named_parameters():
        assert torch.equal(p, before[name].clamp(-0.02, 0.02)), name
        assert p.data_ptr() == places[name]
        assert p.requires_grad
        assert p.grad_fn is None
    assert torch.equal(D[1].running_var, torch.ones(4))


def test_the_default_is_that_of_wgan() -> None:
    D = nn.Linear(50, 1)
    clip_weights_(D)
    assert D.weight.abs().max() == torch.tensor(0.01)


@pytest.mark.parametrize(
    ("module", "limit", "kind", "message"),
    [
        ([nn.Linear(2, 1)], 0.01, TypeError, "takes a module, such as D; got list"),
        (nn.Linear(2, 1), 0.0, ValueError, "must be a finite number > 0; got 0.0"),
        (nn.Linear(2, 1), float("inf"), ValueError, "must be a finite number > 0; got inf"),
        (nn.Linear(2, 1), float("nan"), ValueError, "must be a finite number > 0; got nan"),
        (nn.Linear(2, 1), "0.01", TypeError, "must be a number > 0; got '0.01'"),
        (nn.Linear(2, 1), True, TypeError, "must be a number > 0; got True"),
    ],
)
def test_refuses(module: Any, limit: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        clip_weights_(module, limit)
