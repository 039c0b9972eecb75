"""Spectral norm of many weights at once: the kernels against the plain formula and float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastdat.kernels import formulas, ops
from fastdat.kernels.multi_tensor import ALL, NONE, TILES
from fastdat.kernels.spectral_norm_backward import _Plan
from tests.kernels.accuracy import assert_as_accurate
from tests.kernels.surroundings import nothing_else_written, surrounded
from tests.kernels.test_spectral_norm_by_formula import loss as weighed

ORDERS = pytest.mark.parametrize("u_first", [True, False], ids=["u first", "v first"])
EPS = 1e-12
# One row, one column, primes, sizes on and off the tiles of every kernel, and a matrix of more than 2^16 elements.
SHAPES = ((16, 3, 3, 3), (1, 301), (63, 1), (33, 17, 1, 1), (13, 11, 3, 3), (70, 128), (131, 521))


def layers(
    shapes: tuple[tuple[int, ...], ...] = SHAPES, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Weights, u and v; every other 4-D weight is channels_last."""
    weights = [torch.randn(shape, dtype=torch.float64).to(device, dtype) for shape in shapes]
    for i, w in enumerate(weights):
        if w.ndim == 4 and i % 2 == 0:
            weights[i] = w.to(memory_format=torch.channels_last)
    state = torch.float64 if dtype == torch.float64 else torch.float32
    us = [F.normalize(torch.randn(w.shape[0], dtype=state), dim=0).to(device) for w in weights]
    vs = [F.normalize(torch.randn(w[0].numel(), dtype=state), dim=0).to(device) for w in weights]
    return weights, us, vs


def doubled(*groups: list[Tensor]) -> list[list[Tensor]]:
    return [[t.detach().double() for t in group] for group in groups]


@pytest.mark.parametrize(
    ("iterations", "u_first"), [(0, True), pytest.param(1, True, marks=pytest.mark.smoke), (2, False)]
)
def test_as_accurate_as_the_plain_formula(
    iterations: int, u_first: bool, device: str, deterministic: None
) -> None:
    weights, us, vs = layers(device=device)
    if not iterations:  # as in eval mode; with random u and v, sigma is a small difference of large numbers
        _, us, vs, _ = formulas.spectral_norm(weights, us, vs, 5, EPS, u_first, torch.float32)
    given = weights, list(us), list(vs)
    found = ops.spectral_norm(*given, iterations, EPS, u_first, torch.float32)
    plain = formulas.spectral_norm(*given, iterations, EPS, u_first, torch.float32)
    exact = formulas.spectral_norm(*doubled(*given), iterations, EPS, u_first, torch.float64)
    for results in zip(found[:3], plain[:3], exact[:3], strict=True):
        for ours, theirs, true in zip(*results, strict=True):
            assert_as_accurate(ours, theirs, true)
    torch.testing.assert_close(found[3].double(), exact[3], rtol=1e-5, atol=0)
    for w, out in zip(given[0], found[0], strict=True):
        assert out.stride() == w.stride()


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_sizes_around_the_tiles(more: int, device: str, deterministic: None) -> None:
    """One row or column fewer than whole tiles, just as many, and one more; 8 columns; a single element."""
    rows, columns = TILES.rows, TILES.columns
    shapes = (rows.rows, rows.cols), (columns.rows, columns.cols), (2 * rows.rows, 2 * columns.cols)
    shapes = (*((n + more, m + more) for n, m in shapes), (5, 8), (1, 1), (8, 3))
    given = layers(shapes, torch.float64, device)
    found = ops.spectral_norm(*given, 1, EPS, True, torch.float64)
    plain = formulas.spectral_norm(*given, 1, EPS, True, torch.float64)
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(st.lists(st.integers(1, 40), min_size=2, max_size=4), min_size=1, max_size=5),
    iterations=st.integers(0, 2),
    u_first=st.booleans(),
)
def test_any_shapes(shapes: list[list[int]], iterations: int, u_first: bool, device: str) -> None:
    shapes = [shape if len(shape) < 4 else [*shape[:2], 3, 3] for shape in shapes]
    given = layers(tuple(map(tuple, shapes)), torch.float64, device)
    found = ops.spectral_norm(*given, iterations, EPS, u_first, torch.float64)
    plain = formulas.spectral_norm(*given, iterations, EPS, u_first, torch.float64)
    torch.testing.assert_close(found[:3], plain[:3], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("dtype", "out_dtype"),
    [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32)],
    ids=str,
)
def test_low_precision(dtype: torch.dtype, out_dtype: torch.dtype, device: str) -> None:
    """bf16 weights are read as they are and summed in fp32; sigma is within 1e-3 of float64 on the same numbers."""
    given = layers(dtype=dtype, device=device)
    outs, *_, sigma = ops.spectral_norm(*given, 1, EPS, True, out_dtype)
    plain, *_ = formulas.spectral_norm(*given, 1, EPS, True, out_dtype)
    exact, *_, true = formulas.spectral_norm(*doubled(*given), 1, EPS, True, torch.float64)
    torch.testing.assert_close(sigma.double(), true, rtol=1e-5, atol=0)
    for ours, theirs, weight in zip(outs, plain, exact, strict=True):
        assert_as_accurate(ours, theirs, weight)


@pytest.mark.parametrize("iterations", [0, 1])
def test_nothing_around_the_tensors_is_touched(iterations: int, device: str) -> None:
    """Neither of a layer that is loaded 16 bytes at a time nor of one that is not."""
    import fastdat.kernels.spectral_norm  # noqa: F401 - makes the operators

    weights, us, vs = layers(((5, 7, 3, 3), (6, 32)), torch.float64, device)
    settings = iterations, EPS, True, torch.float64
    exact, *_ = formulas.spectral_norm([w.requires_grad_() for w in weights], us, vs, *settings)
    upstream = [torch.randn_like(w) for w in weights]
    expected = torch.autograd.grad(exact, weights, upstream)
    given = [[surrounded(t.detach()) for t in group] for group in (weights, us, vs)]
    with nothing_else_written():
        outs, state, sigma = torch.ops.fastdat.spectral_norm(*given, *settings)
        grads = [surrounded(g) for g in upstream], given[0], *map(surrounded, (state, sigma))
        found = torch.ops.fastdat.spectral_norm_backward(*grads, surrounded(torch.zeros_like(sigma)))
    torch.testing.assert_close(outs, exact, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, list(expected), rtol=1e-12, atol=1e-12)


@ORDERS
def test_eps_is_the_least_norm(u_first: bool, device: str) -> None:
    """One weight has norms below it, the other above."""
    weights, us, vs = layers(((5, 7), (8, 16)), torch.float64, device)
    weights[0] *= 0.01
    found = ops.spectral_norm(weights, us, vs, 2, 0.5, u_first, torch.float64)
    plain = formulas.spectral_norm(weights, us, vs, 2, 0.5, u_first, torch.float64)
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)
    assert found[1][0].norm() < 0.9 < 1.1 * found[1][1].norm()


@ORDERS
def test_weights_laid_out_otherwise(u_first: bool, device: str) -> None:
    """A transposed or sliced weight is copied, and so are u, v and gradients; the result is contiguous."""
    base = torch.randn(12, 20, dtype=torch.float64, device=device)
    weights = [w.detach().requires_grad_() for w in (base.t(), base[:, ::2], base[:1].expand(3, 20))]
    _, us, vs = layers(((20, 12), (12, 10), (3, 20)), torch.float64, device)
    us, vs = ([t.repeat_interleave(2)[::2] for t in group] for group in (us, vs))
    found = ops.spectral_norm(weights, us, vs, 1, EPS, u_first, torch.float64)
    plain = formulas.spectral_norm(weights, us, vs, 1, EPS, u_first, torch.float64)
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)
    assert all(out.is_contiguous() for out in found[0])
    totals = (sum(o.pow(3).sum() for o in outs) + sigma.sum() for outs, *_, sigma in (found, plain))
    ours, theirs = (torch.autograd.grad(total, weights) for total in totals)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_a_weight_that_begins_anywhere(device: str) -> None:
    """Not on 16 bytes, as a slice of a flat buffer may."""
    flat = torch.randn(1 + 16 * 48, device=device)
    weights = [flat[1:].view(16, 48).requires_grad_()]
    _, us, vs = layers(((16, 48),), device=device)
    outs, *_ = ops.spectral_norm(weights, us, vs, 1, EPS, True, torch.float32)
    plain, *_ = formulas.spectral_norm(weights, us, vs, 1, EPS, True, torch.float32)
    upstream = torch.randn(1 + 16 * 48, device=device)[1:].view(16, 48)
    ours, theirs = (torch.autograd.grad(o[0], weights, upstream)[0] for o in (outs, plain))
    torch.testing.assert_close(outs, plain, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


# NumPy, in the interpreter, at what these tests are about.
INVALID = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")


@INVALID
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("iterations", [0, 1])
def test_nan_and_inf_show(bad: float, iterations: int, device: str) -> None:
    """In the layer that has them, and in no other."""
    weights, us, vs = layers(((9, 20), (5, 7)), device=device)
    weights[0][4, 3] = bad
    outs, new_us, new_vs, sigma = ops.spectral_norm(weights, us, vs, iterations, EPS, True, torch.float32)
    assert not sigma[0].isfinite()
    assert not outs[0].isfinite().all()
    if iterations:
        assert not new_us[0].isfinite().all()
        assert not new_vs[0].isfinite().all()
    assert all(t.isfinite().all() for t in (outs[1], new_us[1], new_vs[1], sigma[1]))


@INVALID
@pytest.mark.filterwarnings("ignore:divide by zero encountered:RuntimeWarning")
def test_a_weight_of_zeros_is_what_torch_makes_of_it(device: str) -> None:
    """0 / 0: NaN, and u and v become 0."""
    weights, us, vs = layers(((4, 6),), torch.float64, device)
    weights[0].zero_()
    found = ops.spectral_norm(weights, us, vs, 1, EPS, True, torch.float64)
    plain = formulas.spectral_norm(weights, us, vs, 1, EPS, True, torch.float64)
    torch.testing.assert_close(found[:3], plain[:3], equal_nan=True)


@pytest.mark.smoke
@ORDERS
def test_gradients(u_first: bool, device: str, deterministic: None) -> None:
    """Also of sigma, also for gradients in another layout than their weight's."""
    weights, us, vs = layers(device=device)
    upstream = [torch.randn(w.shape, device=device) for w in weights]  # contiguous, where weights are not
    weigh = torch.randn(len(weights), device=device)
    found, exact, plain = [], [], []
    for function, dtype, result in (
        (ops.spectral_norm, torch.float32, found),
        (formulas.spectral_norm, torch.float32, plain),
        (formulas.spectral_norm, torch.float64, exact),
    ):
        leaves = [w.detach().to(dtype).requires_grad_() for w in weights]
        states = [[s.to(dtype) for s in group] for group in (us, vs)]
        outs, *_, sigma = function(leaves, *states, 1, EPS, u_first, dtype)
        total = sum((o * g.to(dtype)).sum() for o, g in zip(outs, upstream, strict=True)) + sigma @ weigh.to(
            dtype
        )
        result += torch.autograd.grad(total, leaves)
    for ours, theirs, true in zip(found, plain, exact, strict=True):
        assert_as_accurate(ours, theirs, true)


@pytest.mark.parametrize(("iterations", "u_first"), [(0, True), (1, False), (2, True)])
def test_first_and_second_derivative(iterations: int, u_first: bool, device: str) -> None:
    """As those of the formula, in which u and v are constants after their iterations."""
    weights, us, vs = layers(((5, 3, 3, 2), (1, 7), (33, 70)), torch.float64, device)
    settings, found = (iterations, EPS, u_first, torch.float64), []
    for function in (ops.spectral_norm, formulas.spectral_norm):
        leaves = [w.detach().requires_grad_() for w in weights]
        first = torch.autograd.grad(weighed(function, leaves, us, vs, *settings), leaves, create_graph=True)
        second = torch.autograd.grad(sum(d.pow(3).sum() for d in first), leaves)
        found.append([*first, *second])
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-11)


def penalised(function: Callable[..., object]) -> Callable[..., Tensor]:
    """The gradient for the weights of a loss that holds an input gradient of a network made of them."""

    def loss(weights: list[Tensor], us: list[Tensor], vs: list[Tensor], x: Tensor) -> Tensor:
        (a, b), new_us, _, _ = function(weights, us, vs, 1, EPS, True, torch.float64)
        gradient = torch.func.vjp(lambda x: torch.tanh(x @ a.t()) @ b.t(), x)[1](x.new_ones(x.shape[0], 1))[0]
        return gradient.square().sum() + new_us[0].detach().sum()

    return torch.func.grad(loss)


def test_under_torch_func_and_compiled(device: str) -> None:
    weights, us, vs = layers(((6, 5), (1, 6)), torch.float64, device)
    x = torch.randn(4, 5, dtype=torch.float64, device=device)
    expected = penalised(formulas.spectral_norm)(weights, us, vs, x)
    torch.testing.assert_close(penalised(ops.spectral_norm)(weights, us, vs, x), expected)
    compiled = torch.compile(penalised(ops.spectral_norm), fullgraph=True)
    torch.testing.assert_close(compiled(weights, us, vs, x), expected)


def test_mapped_calls_are_a_loop(device: str) -> None:
    weights, us, vs = layers(((6, 5), (1, 6)), torch.float64, device)

    def loss(weights: list[Tensor]) -> Tensor:
        outs, _, _, sigma = ops.spectral_norm(weights, us, vs, 1, EPS, True, torch.float64)
        return sum(o.pow(3).sum() for o in outs) + sigma.pow(2).sum()

    batch = [torch.stack([w, 1.5 * w + 0.1, w**2]) for w in weights]
    found = torch.vmap(torch.func.grad(loss))(batch)
    for i in range(3):
        one = torch.func.grad(loss)([w[i] for w in batch])
        torch.testing.assert_close([f[i] for f in found], one, rtol=1e-12, atol=1e-12)


def test_opcheck(device: str) -> None:
    import fastdat.kernels.spectral_norm  # noqa: F401 - makes the operators

    single, half = torch.float32, torch.bfloat16
    for iterations, u_first, dtype in (
        (0, True, single),
        (1, False, single),
        (0, False, half),
        (1, True, half),
    ):
        weights, us, vs = layers(((6, 2, 3, 3), (3, 8)), device=device)
        weights = [w.requires_grad_(dtype == torch.float32) for w in weights]
        given = (weights, us, vs, iterations, EPS, u_first, dtype)
        torch.library.opcheck(torch.ops.fastdat.spectral_norm.default, given)
    outs, state, sigma = torch.ops.fastdat.spectral_norm(*given)
    grads = [torch.randn_like(o, requires_grad=True) for o in outs]
    given = (grads, [w.detach() for w in weights], state, sigma, torch.randn_like(sigma))
    torch.library.opcheck(torch.ops.fastdat.spectral_norm_backward.default, given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w, u, v: ([], [], []), r"at least one: got 0, 0 and 0"),
        (lambda w, u, v: (w, u[:1], v), r"as many, at least one: got 2, 1 and 2"),
        (lambda w, u, v: ([w[0], w[1].double()], u, v), r"one dtype and device, got torch.float32.*float64"),
        (
            lambda w, u, v: ([w[0], w[1].to("meta")], u, v),
            r"got torch.float32 on cpu and torch.float32 on meta \(weights\[1\]\)",
        ),
        (
            lambda w, u, v: (w, v, u),
            r"u and v of weights\[0\], of shape \(9, 20\), must be of shapes \(9,\) and \(20,\)",
        ),
        (lambda w, u, v: ([w[0], w[1][:0]], u, v), r"weights\[1\] must be .* got shape \(0, 7\)"),
    ],
    ids=["none", "too few", "two dtypes", "two devices", "swapped", "empty"],
)
def test_what_does_not_fit_says_so(change: Callable[..., object], message: str) -> None:
    given = change(*layers(((9, 20), (5, 7))))
    with pytest.raises(ValueError, match=message):
        ops.spectral_norm(*given, 1, EPS, True, torch.float32)


def test_equal_inputs_give_equal_bits(device: str) -> None:
    weights, us, vs = layers(((33, 17, 1, 1), (13, 11, 3, 3)), device=device)
    leaves = [w.requires_grad_() for w in weights]

    def run() -> list[Tensor]:
        outs, new_us, new_vs, sigma = ops.spectral_norm(leaves, us, vs, 1, EPS, True, torch.float32)
        total = sum(o.square().sum() for o in outs)
        return [*outs, *new_us, *new_vs, sigma, *torch.autograd.grad(total, leaves)]

    first = run()
    for _ in range(1 if device == "cpu" else 50):
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


@ORDERS
def test_a_weight_of_many_programs(u_first: bool, device: str, small_tiles: None) -> None:
    """Of every kernel: the counts of partial sums that a program adds up are those it should."""
    given = layers(((3, 321), (37, 3)), device=device)
    found = ops.spectral_norm(*given, 1, EPS, u_first, torch.float32)
    exact = formulas.spectral_norm(*doubled(*given), 1, EPS, u_first, torch.float64)
    for ours, true in zip(found[:3], exact[:3], strict=True):
        for a, b in zip(ours, true, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("grads", "weights", "outs", "dot", "combine"),
    [
        (True, True, True, ALL, ALL),
        (False, True, True, NONE, NONE),
        (True, False, True, NONE, ALL),
        (True, True, False, ALL, NONE),
    ],
)
def test_16_bytes_at_a_time_where_all_that_a_kernel_takes_begins_on_16_bytes(
    grads: bool, weights: bool, outs: bool, dot: Any, combine: Any
) -> None:
    of_one_layer = [torch.zeros(32, 16)]
    steps = _Plan(of_one_layer, of_one_layer, torch.zeros(48)).steps_for((grads, weights, outs))
    assert [step.constants["WIDE"] for _, step in steps] == [dot.value, combine.value]
