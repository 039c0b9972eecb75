"""Spectral norm without Triton: an operator too, computed by formula, and the formula's own in every derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastdat.kernels import formulas, inductor, ops, spectral_norm
from fastdat.kernels.differentiable import Functions
from tests.kernels.noted_operators import NotedOperators

EPS = 1e-12
SHAPES = ((5, 3, 3, 2), (1, 7), (6, 4))


@pytest.fixture(autouse=True)
def by_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral_norm, "use_triton", lambda x: False)  # in Triton's interpreter, too


def layers(dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """A weight in channels_last, one of a single row, and one whose rows do not lie one after another; u and v."""
    torch.manual_seed(0)
    a, b, c = (torch.randn(shape, dtype=dtype) for shape in SHAPES)
    weights = [a.to(memory_format=torch.channels_last), b, c.t().contiguous().t()]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    us = [F.normalize(torch.randn(w.shape[0], dtype=wide), dim=0) for w in weights]
    vs = [F.normalize(torch.randn(w[0].numel(), dtype=wide), dim=0) for w in weights]
    return weights, us, vs


def loss(function: Callable[..., Any], weights: list[Tensor], us: Any, vs: Any, *settings: Any) -> Tensor:
    """Weighs every element of the results by another number."""
    outs, _, _, sigma = function(weights, us, vs, *settings)
    terms = [(o * torch.linspace(1, 2, o.numel(), dtype=o.dtype).view(o.shape)).pow(2).sum() for o in outs]
    return sum(terms) + (sigma * torch.linspace(1, 3, len(sigma), dtype=sigma.dtype)).pow(2).sum()


@pytest.mark.parametrize("u_first", [True, False], ids=["u first", "v first"])
@pytest.mark.parametrize("iterations", [0, 1, 2])
def test_as_the_formula_to_second_order(iterations: int, u_first: bool) -> None:
    weights, us, vs = layers()
    settings = iterations, EPS, u_first, torch.float64
    found = []
    for function in (ops.spectral_norm, formulas.spectral_norm):
        leaves = [w.detach().requires_grad_() for w in weights]
        outs, new_us, new_vs, sigma = function(leaves, us, vs, *settings)
        first = torch.autograd.grad(loss(function, leaves, us, vs, *settings), leaves, create_graph=True)
        second = torch.autograd.grad(sum(d.pow(3).sum() for d in first), leaves)
        found.append([*outs, *new_us, *new_vs, sigma, *first, *second])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_it_is_one_operation_forward_and_one_back() -> None:
    weights, us, vs = layers()
    leaves = [w.requires_grad_() for w in weights]
    with NotedOperators() as noted:
        loss(ops.spectral_norm, leaves, us, vs, 1, EPS, True, torch.float64).backward()
    assert noted.names == {"spectral_norm", "spectral_norm_backward"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_fp32(dtype: torch.dtype) -> None:
    weights, us, vs = layers(dtype)
    leaves = [w.requires_grad_() for w in weights]
    outs, new_us, _, sigma = ops.spectral_norm(leaves, us, vs, 1, EPS, True, dtype)
    assert {o.dtype for o in outs} == {dtype}
    assert {t.dtype for t in (*new_us, sigma)} == {torch.float32}
    wide = [w.detach().double() for w in weights], [u.double() for u in us], [v.double() for v in vs]
    exact = formulas.spectral_norm(*wide, 1, EPS, True, torch.float64)
    torch.testing.assert_close(sigma.double(), exact[3], rtol=1e-6, atol=0)
    for ours, true in zip(outs, exact[0], strict=True):
        torch.testing.assert_close(ours.double(), true, rtol=1e-2, atol=1e-3)
    grads = torch.autograd.grad(sum(o.float().pow(2).sum() for o in outs), leaves)
    assert [(g.dtype, g.stride()) for g in grads] == [(dtype, o.stride()) for o in outs]


def test_mapped_calls_are_a_loop() -> None:
    weights, us, vs = layers()
    weights, us, vs = weights[:2], us[:2], vs[:2]
    gradient = torch.func.grad(lambda w: loss(ops.spectral_norm, w, us, vs, 1, EPS, True, torch.float64))
    batch = [torch.stack([w, 1.5 * w + 0.1, w**2], dim=1) for w in weights]
    found = torch.vmap(gradient, in_dims=1, out_dims=1)(batch)
    for i in range(3):
        one = gradient([w.select(1, i) for w in batch])
        torch.testing.assert_close([f.select(1, i) for f in found], one, rtol=1e-12, atol=1e-12)


def test_opcheck() -> None:
    for iterations, dtype in ((0, torch.float32), (1, torch.bfloat16)):
        weights, us, vs = layers(torch.float32)
        leaves = [w.requires_grad_(dtype == torch.float32) for w in weights]
        given = (leaves, us, vs, iterations, EPS, True, dtype)
        torch.library.opcheck(torch.ops.fastdat.spectral_norm.default, given)
    outs, state, sigma = torch.ops.fastdat.spectral_norm(*given)
    grads = [torch.randn(o.shape, requires_grad=True) for o in outs]  # the first not in its weight's layout
    given = (grads, [w.detach() for w in weights], state, sigma, torch.randn_like(sigma))
    torch.library.opcheck(torch.ops.fastdat.spectral_norm_backward.default, given)


def test_a_graph_with_it_can_be_pickled_by_name() -> None:
    """AOTAutograd's cache does, and takes the function by its name and by what the files say that make it."""
    for name, contents in inductor.cacheable().items():
        module, _, function = name.rpartition(".")
        assert module == Functions.__module__
        found = getattr(Functions, function)
        assert f"{found.__module__}.{found.__name__}" == name
        assert found.__qualname__ == f"Functions.{function}"
        assert len(contents) == 64
    assert f"{Functions.__module__}.spectral_norm" in inductor.cacheable()
