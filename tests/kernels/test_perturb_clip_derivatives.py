"""Derivatives of the attack step on the samples, under autograd, torch.func, vmap and torch.compile."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdat.kernels import formulas, ops
from fastdat.kernels.formulas import Limits
from tests.kernels.accuracy import assert_as_accurate
from tests.kernels.perturb_cases import BOUNDS, DTYPES, LIMITS, NOT_FINITE, doubled, layouts, samples
from tests.kernels.surroundings import nothing_else_written, surrounded

# --- derivatives --------------------------------------------------------------------------------------------------


def away_from_limits(*shape: int, device: str = "cpu") -> tuple[Tensor, ...]:
    """float64 arguments with gradients none of which is near 0.3 or BOUNDS, and elements on every side of them."""
    x = torch.empty(shape, dtype=torch.float64)
    grad = torch.empty(shape, dtype=torch.float64)
    choices = itertools.cycle(itertools.product((-0.9, -0.1, 0.5, 0.95, 2.0), (-0.8, -0.1, 0.15, 0.7)))
    for x_i, grad_i, (a, b) in zip(x.flatten(), grad.flatten(), choices, strict=False):
        x_i.copy_(torch.tensor(a))
        grad_i.copy_(torch.tensor(b))
    coefficient = torch.linspace(0.9, 1.1, shape[0], dtype=torch.float64)
    return tuple(t.to(device).requires_grad_() for t in (x, grad, coefficient))


def test_derivatives_to_second_order(device: str) -> None:
    given = away_from_limits(2, 4, device=device)

    def run(*tensors: Tensor) -> Tensor:
        return ops.perturb_clip(*tensors, Limits(0.3, BOUNDS, 1))

    assert torch.autograd.gradcheck(run, given)
    assert torch.autograd.gradgradcheck(run, given)


def gradients(which: Any, given: tuple[Tensor, ...], upstream: Tensor, limits: Limits, **options: Any) -> Any:
    """dx, dg, dc (and of the second order: the derivatives of their weighted sum) of an implementation."""
    given = tuple(t.detach().requires_grad_() for t in given)
    upstream = upstream.detach().requires_grad_()
    x_hat = which.perturb_clip(*given, limits, **options)
    first = torch.autograd.grad(x_hat, given, upstream, create_graph=True)
    weighted = sum((t.double() * torch.cos(torch.arange(t.numel(), device=t.device)).reshape(t.shape)).sum()
                   for t in first)  # fmt: skip
    second = torch.autograd.grad(weighted, (upstream, *given[1:]), allow_unused=True)
    return *first, *second


@pytest.mark.parametrize("clip_from", [0, pytest.param(2, marks=pytest.mark.smoke)])
@pytest.mark.parametrize(("delta_clip", "bounds"), LIMITS)
def test_gradients_match_the_plain_formula(
    delta_clip: float | None, bounds: Any, clip_from: int, device: str
) -> None:
    """First and second order, in float64, over samples of several blocks."""
    given = samples(3, 4099, dtype=torch.float64, device=device)
    upstream = torch.randn(3, 4099, dtype=torch.float64, device=device)
    found, plain = (
        gradients(which, given, upstream, Limits(delta_clip, bounds, clip_from)) for which in (ops, formulas)
    )
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("of_x", "of_grad"),
    [*((dtype, dtype) for dtype in DTYPES[:3]), (torch.bfloat16, torch.float32)],
    ids=str,
)
def test_gradients_in_low_precision(of_x: torch.dtype, of_grad: torch.dtype, device: str) -> None:
    """Inside a limit as accurate as the plain formula; at most a thousandth of the elements flips across one."""
    x, grad, coefficient = samples(4, 4099, device=device)
    given = (x.to(of_x), grad.to(of_grad), coefficient.to(of_x).float())
    upstream = torch.randn_like(given[0])
    found, plain = (gradients(which, given, upstream, Limits(0.3, BOUNDS))[:3] for which in (ops, formulas))
    exact = gradients(formulas, doubled(*given), upstream.double(), Limits(0.3, BOUNDS))[:3]
    for ours, theirs, true in zip(found[:2], plain[:2], exact[:2], strict=True):
        flipped = (ours == 0) != (true == 0)
        assert flipped.float().mean() <= 1e-3
        kept = ~flipped & ((theirs == 0) == (true == 0))
        assert_as_accurate(*(torch.where(kept, t, 0) for t in (ours, theirs, true)))
    torch.testing.assert_close(found[2], plain[2], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("of_x", [torch.float64, torch.float32])
def test_the_second_order_is_as_exact_as_the_most_exact_argument(of_x: torch.dtype, device: str) -> None:
    """Gradient and coefficient in float32: with x in float64 all is computed in float64."""
    x, grad, coefficient = samples(3, 401, device=device)
    given, upstream = (x.to(of_x), grad, coefficient), torch.randn(3, 401, device=device).to(of_x)
    found = gradients(ops, given, upstream, Limits(0.3, BOUNDS, 1))
    exact = gradients(formulas, doubled(*given), upstream.double(), Limits(0.3, BOUNDS, 1))
    d_upstream, tolerance = 3, 1e-12 if of_x == torch.float64 else 1e-5
    assert found[d_upstream].dtype == of_x
    torch.testing.assert_close(found[d_upstream].double(), exact[d_upstream], rtol=tolerance, atol=tolerance)


@NOT_FINITE
def test_gradient_passes_on_a_limit_and_not_beyond(device: str) -> None:
    """torch.clamp's convention; NaN lies on no side of a limit and passes nothing."""
    values = [0.5, math.nextafter(0.5, 1), -0.5, math.nextafter(-0.5, -1), 0.0, math.nan, math.inf, 0.25]
    x = torch.tensor([values, [0.5] * 8, [0.75] * 8], dtype=torch.float64, device=device)
    grad = torch.tensor([[0.0] * 8, values, values], dtype=torch.float64, device=device)
    given = (x, grad, torch.ones(3, dtype=torch.float64, device=device))
    for limits, clip_from in itertools.product(
        [(0.5, (-1.0, 1.0)), (None, (-0.5, 0.5)), (0.5, None), (0.5, (-0.5, 1.0))], [0, 1]
    ):
        found, plain = (
            gradients(which, given, torch.ones_like(x), Limits(*limits, clip_from))
            for which in (ops, formulas)
        )
        torch.testing.assert_close(found[:3], plain[:3], rtol=0, atol=0, equal_nan=True)


def test_nothing_around_the_tensors_is_touched(device: str) -> None:
    import fastdat.kernels.perturb_clip  # noqa: F401 - makes the operator

    given = tuple(t.requires_grad_() for t in samples(2, 37, device=device))
    upstream = torch.randn(2, 37, device=device)
    x_hat = formulas.perturb_clip(*given, Limits(0.3, BOUNDS, 1))
    arguments = [surrounded(t.detach()) for t in (upstream, *given)]
    with nothing_else_written():
        found = torch.ops.fastdat.perturb_clip_backward(*arguments, 0.3, BOUNDS, 1)
    torch.testing.assert_close(found, torch.autograd.grad(x_hat, given, upstream))


def test_stats_are_constants(device: str) -> None:
    given = away_from_limits(2, 6, device=device)
    x_hat, stats = ops.perturb_clip_stats(*given, Limits(0.3, BOUNDS))
    assert x_hat.requires_grad
    assert not stats.requires_grad
    upstream = torch.randn_like(x_hat)
    expected = torch.autograd.grad(ops.perturb_clip(*given, Limits(0.3, BOUNDS)), given, upstream)
    torch.testing.assert_close(torch.autograd.grad(x_hat, given, upstream), expected)


@pytest.mark.parametrize("layout", ["channels_last", "batch inside", "expanded"])
def test_gradients_of_any_layout(layout: str, device: str) -> None:
    x, grad, coefficient = samples(2, 3, 4, 5, dtype=torch.float64, device=device)
    given = (x, layouts(grad)[layout], coefficient)
    upstream = layouts(torch.randn_like(x))["channels_last" if layout == "expanded" else "contiguous"]
    found, plain = (gradients(which, given, upstream, Limits(0.3, BOUNDS, 1)) for which in (ops, formulas))
    torch.testing.assert_close(found, plain)


# --- transforms ---------------------------------------------------------------------------------------------------


def penalty(which: Any, stats: bool, x: Tensor, grad: Tensor, coefficient: Tensor) -> Tensor:
    if stats:
        x_hat, moved = which.perturb_clip_stats(x, grad, coefficient, Limits(0.3, BOUNDS, 1))
        return (x_hat**3).sum() + moved.sum()
    return (which.perturb_clip(x, grad, coefficient, Limits(0.3, BOUNDS, 1)) ** 3).sum()


@pytest.mark.parametrize("stats", [False, True])
def test_under_func_grad_of_vjp(stats: bool, device: str) -> None:
    given = tuple(t.detach() for t in away_from_limits(2, 7, device=device))

    def norm(which: Any, *tensors: Tensor) -> Tensor:
        value, pullback = torch.func.vjp(lambda *t: penalty(which, stats, *t), *tensors)
        return sum((g**2).sum() for g in pullback(torch.ones_like(value)))

    found, plain = (torch.func.grad(norm, argnums=(1, 2, 3))(which, *given) for which in (ops, formulas))
    torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("in_dims", [(0, 0, 0), (1, None, 1), (None, 2, None)])
def test_vmap_is_a_loop(in_dims: tuple[int | None, ...], device: str) -> None:
    mapped = []
    for axis, t in zip(in_dims, samples(2, 5, dtype=torch.float64, device=device), strict=True):
        mapped.append(t if axis is None else torch.stack([t, -t, 2 * t], dim=axis))

    def both(*tensors: Tensor) -> tuple[Tensor, ...]:
        x_hat, stats = ops.perturb_clip_stats(*tensors, Limits(0.3, BOUNDS, 1))
        gradient = torch.func.grad(lambda *t: penalty(ops, False, *t), argnums=(0, 1, 2))(*tensors)
        return ops.perturb_clip(*tensors, Limits(0.3, BOUNDS, 1)), x_hat, stats, *gradient

    found = torch.vmap(both, in_dims)(*mapped)
    for i in range(3):
        one = [t if axis is None else t.select(axis, i) for t, axis in zip(mapped, in_dims, strict=True)]
        for ours, theirs in zip(found, both(*one), strict=True):
            torch.testing.assert_close(ours[i], theirs, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize(
    ("op", "out_dtype"),
    [("perturb_clip", None), ("perturb_clip_stats", torch.float32), ("perturb_clip_backward", None)],
)
def test_operators_are_well_formed(op: str, out_dtype: torch.dtype | None, device: str) -> None:
    import fastdat.kernels.perturb_clip  # noqa: F401 - makes the operators

    x, grad, coefficient = away_from_limits(2, 3, 2, 2, device=device)
    x = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    before, after = ((torch.randn_like(x),), ()) if op == "perturb_clip_backward" else ((), (out_dtype,))
    given = (*before, x, grad, coefficient, 0.3, BOUNDS, 1, *after)
    torch.library.opcheck(getattr(torch.ops.fastdat, op).default, given)


@pytest.mark.parametrize("stats", [pytest.param(False, marks=pytest.mark.slow), True])
def test_compiled_with_its_derivatives(stats: bool, device: str) -> None:
    given = tuple(t.detach() for t in away_from_limits(2, 7, device=device))

    def second(*tensors: Tensor) -> Any:
        def norm(*inner: Tensor) -> Tensor:
            value, pullback = torch.func.vjp(lambda *t: penalty(ops, stats, *t), *inner)
            return sum((g**2).sum() for g in pullback(torch.ones_like(value)))

        return torch.func.grad(norm, argnums=(0, 1, 2))(*tensors)

    compiled = torch.compile(second, fullgraph=True)
    torch.testing.assert_close(compiled(*given), second(*given))


def test_compiled_in_bf16(device: str) -> None:
    x, grad, coefficient = samples(2, 3, 4, 4, dtype=torch.bfloat16, device=device)
    x = x.to(memory_format=torch.channels_last)

    @torch.compile(fullgraph=True)
    def run(x: Tensor, grad: Tensor, coefficient: Tensor) -> Tensor:
        return ops.perturb_clip(x * 1, grad, coefficient, Limits(0.3), out_dtype=torch.float32)

    found = run(x, grad, coefficient)
    torch.testing.assert_close(
        found, formulas.perturb_clip(x, grad, coefficient, Limits(0.3), out_dtype=torch.float32)
    )
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_reference_is_differentiable_twice_and_mixes_dtypes() -> None:
    given = away_from_limits(2, 6)
    assert torch.autograd.gradgradcheck(lambda *t: formulas.perturb_clip(*t, Limits(0.3, BOUNDS, 1)), given)
    x, grad, coefficient = (t.detach() for t in given)
    out = formulas.perturb_clip(x.bfloat16(), grad.bfloat16(), coefficient.bfloat16(), Limits(0.3, BOUNDS))
    wide = formulas.perturb_clip(
        x.bfloat16().double(), grad.bfloat16().double(), coefficient.bfloat16().double(), Limits(0.3, BOUNDS)
    )
    assert torch.equal(out, wide.bfloat16())  # rounded once
