"""What people give to dat_step by mistake: each is an error that says what to do, and leaves everything as it was.

What looks wrong and is right is in test_odd_but_right.py.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdat
from tests.engine.abuses_of_arguments import OF_ARGUMENTS
from tests.engine.abuses_of_discriminator import OF_DISCRIMINATOR

ABUSES = {**OF_DISCRIMINATOR, **OF_ARGUMENTS}


def state_of(D: Any, xr: Any, xf: Any, args: tuple[Any, ...]) -> list[Any]:
    """Everything that must stay as it is."""
    tensors = [x for x in (xr, xf, *args) if isinstance(x, Tensor)]
    if isinstance(D, nn.Module) and not isinstance(D, torch.jit.ScriptModule):
        tensors += [
            *D.parameters(),
            *D.buffers(),
            *[p.grad for p in D.parameters() if p.grad is not None],
        ]
    return [
        values_of(t.detach()) for t in tensors if not (nn.parameter.is_lazy(t) or t.is_meta or t.is_nested)
    ]


def values_of(t: Tensor) -> Tensor:
    """A dense copy without NaN."""
    if t.is_quantized:
        return t.dequantize()
    t = t.to_dense().clone()
    return t.double().nan_to_num() if t.is_floating_point() else t


@pytest.mark.filterwarnings("ignore:.*quantiz:UserWarning", "ignore:.*quantiz:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("abuse", ABUSES)
def test_an_abuse_is_an_error_that_says_what_to_do(abuse: str) -> None:
    make, error, says = ABUSES[abuse]
    call = make()
    within: AbstractContextManager[Any] = call.pop("within", nullcontext())
    D, xr, xf = call.pop("D"), call.pop("xr"), call.pop("xf")
    if isinstance(D, nn.Module) and not isinstance(D, torch.jit.ScriptModule):
        for p in D.parameters():
            if not (nn.parameter.is_lazy(p) or p.is_inference()):
                p.grad = torch.ones_like(p)
    args = (*call.get("args_real", ()), *call.get("args_fake", ()))
    old = state_of(D, xr, xf, args)
    for _ in range(2):  # the second time as well as the first
        with pytest.raises(error, match=r"(?s)" + says), within:
            fastdat.dat_step(D, xr, xf, **call)
        assert all(map(torch.equal, state_of(D, xr, xf, args), old))


def test_the_table_is_long() -> None:
    assert len(ABUSES) >= 100
