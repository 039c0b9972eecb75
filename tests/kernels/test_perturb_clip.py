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
from fastdat.kernels.perturb_clip import sample_major
from tests.kernels.accuracy import assert_as_accurate
from tests.kernels.perturb_cases import BOUNDS, DTYPES, LIMITS, NOT_FINITE, doubled, layouts, samples
from tests.kernels.surroundings import nothing_else_written, surrounded


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
        *((1, 1), (3, 1023), (2, 1024), (3,)),
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
@pytest.mark.parametrize(
    ("of_x", "out_dtype"), [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)]
)
def test_out_dtype(
    of_x: torch.dtype, out_dtype: torch.dtype, of_coefficient: torch.dtype, device: str
) -> None:
    x, grad, coefficient = samples(3, 5, 7, device=device)
    found = assert_matches_reference(
        x.to(of_x), grad, coefficient.to(of_coefficient), Limits(0.3, BOUNDS), out_dtype=out_dtype
    )
    assert found.dtype == out_dtype


@pytest.mark.parametrize("clip_from", [0, 1, 3, 4])
def test_clip_from(clip_from: int, device: str) -> None:
    """The bounds leave out 0, which is what lies beyond the last block to a kernel."""
    x, grad, coefficient = samples(4, 70, dtype=torch.float64, device=device)
    found = assert_matches_reference(x, grad, coefficient, Limits(None, (0.1, 0.4), clip_from))
    torch.testing.assert_close(found[:clip_from], (x + coefficient[:, None] * grad)[:clip_from])
    assert ((found[clip_from:] >= 0.1) & (found[clip_from:] <= 0.4)).all()


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
    x, coefficient = layouts(x)[of_x], coefficient.repeat_interleave(2)[::2]
    assert n == 1 or not coefficient.is_contiguous()
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
    """And what is exactly on a limit is not limited."""
    special = torch.tensor([math.nan, math.inf, -math.inf, 0.0, 1.0, -1.0, 0.3, -2.0])
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


def test_nothing_around_the_tensors_is_touched(device: str) -> None:
    given = samples(2, 37, device=device)
    with nothing_else_written():
        found = ops.perturb_clip_stats(*map(surrounded, given), Limits(0.3, BOUNDS, 1))
    torch.testing.assert_close(found, formulas.perturb_clip_stats(*given, Limits(0.3, BOUNDS, 1)))


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


@pytest.mark.parametrize(
    ("shape", "strides", "kept"),
    [
        ((2, 3, 4), (12, 4, 1), True),
        ((2, 3, 4), (12, 1, 3), True),  # channels last
        ((2, 1, 4), (4, 9, 1), True),  # the step along an axis of one element is never taken
        ((2, 3, 4, 1), (12, 1, 3, 50), True),
        ((1, 3, 4), (99, 4, 1), True),
        ((2, 3, 4), (13, 4, 1), False),
        ((2, 3, 4), (12, 4, 2), False),
        ((2, 3, 4), (4, 0, 1), False),  # expanded
        ((3, 2), (1, 3), False),  # sample by sample is the other axis
    ],
)
def test_samples_one_after_another_are_not_copied(
    shape: tuple[int, ...], strides: tuple[int, ...], kept: bool
) -> None:
    x = torch.arange(200.0).as_strided(shape, strides)
    found = sample_major(x)
    assert (found is x) == kept
    assert torch.equal(found, x)
    assert found is x or found.is_contiguous()
