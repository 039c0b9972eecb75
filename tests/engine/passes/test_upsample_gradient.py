"""The gradient of a bilinear up-sampling by 2 is torch's, and compiled it only reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch._inductor.utils import run_and_get_code

from fastdat.engine import passes
from fastdat.engine.passes.upsample_gradient import UpsampleGradient, upsampled


def torchs(x: Tensor, **changes: Any) -> Tensor:
    return F.interpolate(x, **{"scale_factor": 2, "mode": "bilinear", "align_corners": False, **changes})


@pytest.mark.parametrize("size", [(5, 4), (1, 3), (2, 1), (1, 1)])
def test_the_gradient_at_every_pixel(size: tuple[int, int]) -> None:
    """Edges and corners included; of one row or column, both neighbours are the edge itself."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    ours, theirs = upsampled(x), torchs(x)
    assert torch.equal(ours, theirs)
    grad = torch.randn_like(theirs)
    expected, found = (torch.autograd.grad(y, x, grad)[0] for y in (theirs, ours))
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)


def test_half_precision_is_rounded_once() -> None:
    x = torch.randn(2, 3, 4, 6).bfloat16().requires_grad_()
    grad = torch.randn(2, 3, 8, 12).bfloat16()
    (found,) = torch.autograd.grad(upsampled(x), x, grad)
    wide = x.detach().float().requires_grad_()
    (exact,) = torch.autograd.grad(torchs(wide), wide, grad.float())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, exact.bfloat16(), rtol=2**-8, atol=0)


def rewritten(**changes: Any) -> bool:
    """Whether the pass rewrites an up-sampling in a graph as Dynamo traces it."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.meta["example_value"] = torch.empty(2, 3, 4, 6)
    kwargs = {"scale_factor": 2, "mode": "bilinear", "align_corners": False, **changes}
    node = graph.call_function(F.interpolate, (x,), kwargs)
    node.meta["example_value"] = F.interpolate(x.meta["example_value"], **kwargs)
    graph.output(node)
    UpsampleGradient()(graph)
    graph.lint()
    return node.target is upsampled


def test_what_is_rewritten() -> None:
    assert rewritten()
    assert rewritten(scale_factor=None, size=(8, 12))
    assert rewritten(align_corners=None)
    assert not rewritten(align_corners=True)
    assert rewritten(scale_factor=2.0)
    assert not rewritten(scale_factor=2.05), "8 and 12 pixels too, at other places"
    assert not rewritten(scale_factor=(2.05, 2.0))
    assert not rewritten(scale_factor=3)
    assert not rewritten(scale_factor=(2, 3))
    assert not rewritten(antialias=True)
    assert not rewritten(mode="bicubic")
    assert not rewritten(mode="nearest", align_corners=None)


def test_it_can_be_batched() -> None:
    """As for many discriminators at once, by torch.vmap."""
    x = torch.randn(3, 2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    found = torch.vmap(upsampled)(x)
    expected = torch.vmap(torchs)(x)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, x, weights)[0], torch.autograd.grad(expected, x, weights)[0]
    )


@pytest.mark.slow
def test_compiled() -> None:
    """In both layouts, backward and under torch.func, where nothing is added into memory."""

    def loss(x: Tensor) -> Tensor:
        return torchs(x.relu()).pow(3).sum()

    def backward(x: Tensor) -> Tensor:
        return torch.autograd.grad(compiled(x), x)[0]

    compiled = torch.compile(loss, options=passes.options())
    pulled = torch.compile(torch.func.grad(loss), options=passes.options())
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = x.clone(memory_format=layout).requires_grad_()
        expected = torch.autograd.grad(loss(given), given)[0]
        for function in (backward, pulled):
            found, code = run_and_get_code(function, given if function is backward else given.detach())
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
            assert not any("atomic_add" in source for source in code)
