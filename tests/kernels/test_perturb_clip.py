"""The attack step on the samples: kernel against the plain formula in float64."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastdat.kernels import formulas, ops
from fastdat.kernels.formulas import Limits
from tests.kernels.accuracy import assert_as_accurate

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
BOUNDS = (-1.0, 1.0)
NOT_FINITE = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # NumPy, in the interpreter
LIMITS = [(0.3, BOUNDS), (None, BOUNDS), (0.3, None), (None, None)]


def samples(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Tensor, ...]:
    """x, grad (N, ...) and coefficient (N,), of a scale at which about half the elements meet a limit."""
    x = torch.rand(shape, dtype=torch.float64) * 2 - 1
    grad = torch.randn(shape, dtype=torch.float64)
    coefficient = torch.randn(shape[0], dtype=torch.float64) * 0.4
    return tuple(t.to(device, dtype) for t in (x, grad, coefficient))


def doubled(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.double() for t in tensors)


def assert_matches_reference(
    x: Tensor, grad: Tensor, coefficient: Tensor, limits: Limits, **options: Any
) -> Tensor:
    """x_hat and stats are as accurate as the plain formula's; x_hat is the same with and without stats."""
    exact = formulas.perturb_clip(
        *doubled(x, grad, coefficient), limits, **options | {"out_dtype": torch.float64}
    )
    plain, plain_stats = formulas.perturb_clip_stats(x, grad, coefficient, limits, **options)
    found, stats = ops.perturb_clip_stats(x, grad, coefficient, limits, **options)
    assert_as_accurate(found, plain, exact)
    assert torch.equal(found, ops.perturb_clip(x, grad, coefficient, limits, **options))
    torch.testing.assert_close(stats[:, 0], plain_stats[:, 0], rtol=1e-5, atol=1e-6)
    # whether an element lies on a limit may hang on the rounding of one operation
    assert (stats[:, 1] - plain_stats[:, 1]).abs().max() <= 0.001 * x[0].numel()
    return found


# --- forward ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        *((1, 1), (5, 1), (2, 63), (3, 1023), (2, 1024), (17, 4099), (3,)),
        pytest.param((2, 4099), marks=pytest.mark.smoke),
    ],
)
@pytest.mark.parametrize(("delta_clip", "bounds"), LIMITS)
def test_sizes(shape: tuple[int, ...], delta_clip: float | None, bounds: Any, device: str) -> None:
    assert_matches_reference(*samples(*shape, device=device), Limits(delta_clip, bounds))


@pytest.mark.parametrize(("of_x", "of_grad"), list(itertools.product(DTYPES, DTYPES)))
def test_dtypes(of_x: torch.dtype, of_grad: torch.dtype, device: str) -> None:
    x, grad, coefficient = samples(3, 5, 7, device=device)
    found = assert_matches_reference(x.to(of_x), grad.to(of_grad), coefficient, Limits(0.3, BOUNDS))
    assert found.dtype == of_x


@pytest.mark.parametrize("of_coefficient", DTYPES)
@pytest.mark.parametrize("out_dtype", [torch.bfloat16, torch.float32])
def test_out_dtype(out_dtype: torch.dtype, of_coefficient: torch.dtype, device: str) -> None:
    x, grad, coefficient = samples(3, 5, 7, device=device)
    found = assert_matches_reference(
        x, grad, coefficient.to(of_coefficient), Limits(0.3, BOUNDS), out_dtype=out_dtype
    )
    assert found.dtype == out_dtype


@pytest.mark.parametrize("clip_from", [0, 1, 3, 4])
def test_clip_from(clip_from: int, device: str) -> None:
    x, grad, coefficient = samples(4, 70, dtype=torch.float64, device=device)
    found = assert_matches_reference(x, grad, coefficient, Limits(None, (-0.2, 0.2), clip_from))
    torch.testing.assert_close(found[:clip_from], (x + coefficient[:, None] * grad)[:clip_from])
    assert (found[clip_from:].abs() <= 0.2).all()


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The same images (N, C, H, W) in memory in several ways."""
    return {
        "contiguous": x.contiguous(),
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "batch inside": x.movedim(0, 3).contiguous().movedim(3, 0),
        "every other": torch.stack([x, x], dim=3).flatten(2, 3)[:, :, ::2],
        "one of a pair": torch.stack([x, x], dim=1)[:, 0],
        "expanded": x[:1, :, :1].expand_as(x),
    }


NAMES = (
    "contiguous",
    "channels_last",
    "transposed",
    "batch inside",
    "every other",
    "one of a pair",
    "expanded",
)


@pytest.mark.parametrize("of_x", NAMES)
@pytest.mark.parametrize("n", [1, 3])
def test_layouts(of_x: str, n: int, device: str, deterministic: None) -> None:
    x, grad, coefficient = samples(n, 3, 4, 5, device=device)
    x = layouts(x)[of_x]
    limits = Limits(0.3, BOUNDS)
    for laid_out in layouts(grad).values():
        expected, stats = formulas.perturb_clip_stats(x, laid_out, coefficient, limits)
        found, found_stats = ops.perturb_clip_stats(x, laid_out, coefficient, limits)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(found_stats, stats)
        if of_x in ("contiguous", "channels_last", "transposed"):
            assert found.stride() == x.stride()
        elif n > 1:
            assert found.is_contiguous()


@NOT_FINITE
@pytest.mark.parametrize(("delta_clip", "bounds"), LIMITS)
def test_nan_and_inf_go_on(delta_clip: float | None, bounds: Any, device: str) -> None:
    special = torch.tensor([math.nan, math.inf, -math.inf, 0.0, 1.0, -2.0])
    x, grad = torch.meshgrid(special, special, indexing="ij")
    for c in (1.0, 0.0, -math.inf, math.nan):
        given = [t.to(device) for t in (x, grad, torch.full((len(special),), c))]
        found, expected = (
            which.perturb_clip_stats(*given, Limits(delta_clip, bounds, 1)) for which in (ops, formulas)
        )
        torch.testing.assert_close(found, expected, equal_nan=True)


def test_same_bits_twice_and_nothing_left_unwritten(device: str, deterministic: None) -> None:
    import fastdat.kernels.perturb_clip  # noqa: F401 - makes the operator

    x, grad, coefficient = samples(5, 3, 37, 11, device=device)
    first, second = (ops.perturb_clip_stats(x, grad, coefficient, Limits(0.3, BOUNDS)) for _ in range(2))
    backward = [
        torch.ops.fastdat.perturb_clip_backward(grad, x, grad, coefficient, 0.3, BOUNDS, 1) for _ in range(2)
    ]
    for a, b in zip((*first, *backward[0]), (*second, *backward[1]), strict=True):
        assert torch.isfinite(a).all()
        assert torch.equal(a, b)


@settings(deadline=None, max_examples=25)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    strength=st.floats(-4, 4),
    delta_clip=st.none() | st.floats(0.01, 3),
    bounds=st.none() | st.tuples(st.floats(-2, -0.01), st.floats(0.01, 2)),
    data=st.data(),
)
def test_properties(
    shape: list[int], strength: float, delta_clip: float | None, bounds: Any, data: st.DataObject, device: str
) -> None:
    x, grad, coefficient = samples(*shape, dtype=torch.float64, device=device)
    coefficient = coefficient * strength
    clip_from = data.draw(st.integers(0, shape[0]))
    given = (x, grad, coefficient, Limits(delta_clip, bounds, clip_from))
    found, stats = ops.perturb_clip_stats(*given)
    torch.testing.assert_close(found, formulas.perturb_clip(*given), rtol=1e-14, atol=1e-14)
    if delta_clip is not None and bounds is None:
        assert (found - x).abs().max() <= delta_clip * (1 + 1e-12)
    if bounds is not None:
        clipped = found[clip_from:]
        assert ((clipped >= bounds[0]) & (clipped <= bounds[1])).all()
    change = (found - x).reshape(shape[0], -1)
    torch.testing.assert_close(stats[:, 0], change.square().sum(1))
    free = x + coefficient.reshape(-1, *(1,) * (x.ndim - 1)) * grad
    touched = ((free - found).abs() > 1e-12).reshape(shape[0], -1).sum(1)
    assert (stats[:, 1] >= touched).all()  # both limits may undo each other


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


@pytest.mark.parametrize(("delta_clip", "bounds"), LIMITS)
def test_derivatives_to_second_order(delta_clip: float | None, bounds: Any, device: str) -> None:
    given = away_from_limits(2, 4, device=device)

    def run(*tensors: Tensor) -> Tensor:
        return ops.perturb_clip(*tensors, Limits(delta_clip, bounds, 1))

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_in_low_precision(dtype: torch.dtype, device: str) -> None:
    """Inside a limit as accurate as the plain formula; at most a thousandth of the elements flips across one."""
    x, grad, coefficient = samples(4, 4099, dtype=dtype, device=device)
    given = (x, grad, coefficient.float())
    upstream = torch.randn_like(x)
    found, plain = (gradients(which, given, upstream, Limits(0.3, BOUNDS))[:3] for which in (ops, formulas))
    exact = gradients(formulas, doubled(*given), upstream.double(), Limits(0.3, BOUNDS))[:3]
    for ours, theirs, true in zip(found[:2], plain[:2], exact[:2], strict=True):
        flipped = (ours == 0) != (true == 0)
        assert flipped.float().mean() <= 1e-3
        kept = ~flipped & ((theirs == 0) == (true == 0))
        assert_as_accurate(*(torch.where(kept, t, 0) for t in (ours, theirs, true)))
    torch.testing.assert_close(found[2], plain[2], rtol=1e-4, atol=1e-2)


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


@pytest.mark.parametrize("stats", [False, True])
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


# --- what needs no kernel -----------------------------------------------------------------------------------------

WRONG = {
    "at least one sample": {"x": torch.randn(0, 3), "grad": torch.randn(0, 3), "coefficient": torch.randn(0)},
    r"at least one sample \(N, ...\), got shape \(2, 0\)": {
        "x": torch.randn(2, 0),
        "grad": torch.randn(2, 0),
    },
    "grad must have the shape of x": {"grad": torch.randn(3, 2)},
    r"coefficient must be one number a sample, shape \(2,\), got \(\)": {"coefficient": torch.randn(())},
    "x must be of a floating-point dtype, got torch.int64": {"x": torch.ones(2, 3, dtype=torch.int64)},
    "clip_from must be a number of samples, 0 to 2, got 3": {"limits": Limits(clip_from=3)},
}


@pytest.mark.parametrize("name", ["perturb_clip", "perturb_clip_stats"])
@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments(message: str, name: str) -> None:
    given = {"x": torch.randn(2, 3), "grad": torch.randn(2, 3), "coefficient": torch.randn(2)}
    given |= {"limits": Limits()} | WRONG[message]
    with pytest.raises(ValueError, match=message):
        getattr(ops, name)(**given)


def test_reference_is_differentiable_twice_and_mixes_dtypes() -> None:
    given = away_from_limits(2, 6)
    assert torch.autograd.gradgradcheck(lambda *t: formulas.perturb_clip(*t, Limits(0.3, BOUNDS, 1)), given)
    x, grad, coefficient = (t.detach() for t in given)
    out = formulas.perturb_clip(x.bfloat16(), grad.bfloat16(), coefficient.bfloat16(), Limits(0.3, BOUNDS))
    wide = formulas.perturb_clip(
        x.bfloat16().double(), grad.bfloat16().double(), coefficient.bfloat16().double(), Limits(0.3, BOUNDS)
    )
    assert torch.equal(out, wide.bfloat16())  # rounded once
