"""Coefficients of the attack: kernel against the plain formula, and the formula against autograd."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastdat.kernels import formulas, ops
from fastdat.kernels.logit_functions import TABLE, LogitFunction
from tests.kernels.accuracy import assert_as_accurate
from tests.kernels.surroundings import nothing_else_written, surrounded

NAMES = pytest.mark.parametrize("name", list(TABLE))
REDUCTIONS = pytest.mark.parametrize("reduction", formulas.REDUCTIONS)
SCALE = 0.37


def pair(real: str, fake: str) -> tuple[LogitFunction, LogitFunction]:
    """a_r and a_f by their codes."""
    return TABLE[real], TABLE[fake]


def logits(n: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """clean and now (2, n), apart enough that no residual of a batch is near 0."""
    clean = torch.randn(2, n, dtype=torch.float64) * 3 + torch.tensor([[0.5], [-1.0]])
    now = clean + 0.3 * torch.randn_like(clean)
    return clean.to(device, dtype), now.to(device, dtype)


@NAMES
@REDUCTIONS
@pytest.mark.parametrize("n", [1, 2051])
def test_as_accurate_as_the_plain_formula(name: str, reduction: str, n: int, device: str) -> None:
    clean, now = logits(n, device=device)
    given = (pair(name, name), reduction, SCALE)
    found = ops.attack_coefficients(clean, now, None, *given)
    plain = formulas.attack_coefficients(clean, now, None, *given)
    exact = formulas.attack_coefficients(clean.double(), now.double(), None, *given)
    assert_as_accurate(found[2], plain[2], exact[2])
    same = found[1] == exact[1]  # a residual within rounding of zero may fall on the other side
    assert (~same).sum() <= max(1, n // 500)
    assert_as_accurate(
        torch.where(same, found[0], 0), torch.where(same, plain[0], 0), torch.where(same, exact[0], 0)
    )


@REDUCTIONS
@pytest.mark.parametrize("real", ["gan.g1", "hinge.g2"])
def test_every_side_has_its_own_function(reduction: str, real: str, device: str) -> None:
    clean, now = logits(100, torch.float64, device)
    for fake in TABLE:
        found = ops.attack_coefficients(clean, now, None, pair(real, fake), reduction, SCALE)
        plain = formulas.attack_coefficients(clean, now, None, pair(real, fake), reduction, SCALE)
        torch.testing.assert_close(found, plain, rtol=1e-13, atol=1e-13)


@pytest.mark.smoke
@REDUCTIONS
def test_targets_of_the_first_step(reduction: str, device: str) -> None:
    clean, now = logits(70, torch.float64, device)
    targets = torch.tensor([0.5, -0.25], dtype=torch.float64, device=device)
    found = ops.attack_coefficients(clean, now, targets, pair("gan.g1", "gan.g2"), reduction, SCALE)
    plain = formulas.attack_coefficients(clean, now, targets, pair("gan.g1", "gan.g2"), reduction, SCALE)
    torch.testing.assert_close(found, plain, rtol=1e-13, atol=1e-13)
    assert torch.equal(found[2], targets)
    assert found[2].data_ptr() != targets.data_ptr()


def test_means_are_added_up_in_float64(device: str) -> None:
    """In float32 all that a block adds to large sums of the block before would be lost."""
    from fastdat.kernels.attack_coefficients import BLOCK

    large = 2.0**24 * torch.randint(1, 4, (2, BLOCK))
    clean = torch.cat([large, torch.rand(2, BLOCK), -large, torch.rand(2, 5)], dim=1).to(device)
    given = clean, clean, None, pair("identity", "wgan.g2"), "sample", SCALE
    exact = formulas.attack_coefficients(clean.double(), clean.double(), *given[2:])
    torch.testing.assert_close(ops.attack_coefficients(*given)[2].double(), exact[2], rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_tails_of_softplus(dtype: torch.dtype, device: str) -> None:
    """Where D is sure, softplus is exp, tiny and not zero: the sign of the residual hangs on it."""
    at = torch.tensor([-80.0, -40.0, -25.0, -20.5, -19.0, -1e-3, 0.0, 1e-3, 15.0, 19.0, 20.5, 40.0, 80.0])
    now = torch.stack([at, -at]).to(device, dtype)
    targets = torch.zeros(2, dtype=dtype, device=device)
    given = (now, now, targets, pair("gan.g1", "gan.g2"), "sample", SCALE)
    found, plain = ops.attack_coefficients(*given), formulas.attack_coefficients(*given)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-14  # exp(-80) of a GPU's ex2, in float32
    torch.testing.assert_close(found, plain, rtol=tolerance, atol=0)
    each = now.t().unsqueeze(2)  # a batch of one logit a side, so that its means are values of softplus
    given = (each, each, None, pair("gan.g1", "gan.g2"), "batch", SCALE)
    found, plain = ops.attack_coefficients(*given), formulas.attack_coefficients(*given)
    torch.testing.assert_close(found[2], plain[2], rtol=tolerance, atol=0)


@REDUCTIONS
@NAMES
def test_kinks_and_met_targets(name: str, reduction: str, device: str) -> None:
    """relu has slope 0 at 0 (t = 1 and -1 here); a residual of zero has sign 0."""
    now = torch.tensor([[1.0, -1.0, 0.0, 1.0], [-1.0, 1.0, 0.0, -1.0]], device=device)
    for targets in (None, torch.zeros(2, device=device)):
        given = (now, now, targets, pair(name, name), reduction, SCALE)
        torch.testing.assert_close(
            ops.attack_coefficients(*given), formulas.attack_coefficients(*given), rtol=1e-6, atol=1e-7
        )
    mirror = now[:1].expand(2, -1)
    assert (
        reduction == "sample"
        or not ops.attack_coefficients(mirror, mirror, None, pair(name, name), reduction, SCALE)[1].any()
    )


@REDUCTIONS
@pytest.mark.parametrize("name", ["identity", "hinge.g1", "gan.g2", "lsgan.g1"])
def test_nan_is_never_a_sign_of_zero(name: str, reduction: str, device: str) -> None:
    clean = torch.randn(2, 5, device=device)
    for dirty, where in itertools.product(
        (float("nan"), float("inf"), -float("inf")), ("clean", "now", "both")
    ):
        logits = {"clean": clean.clone(), "now": clean.clone()}
        for part in ("clean", "now") if where == "both" else (where,):
            logits[part][0, 1] = dirty
        given = (logits["clean"], logits["now"], None, pair(name, name), reduction, SCALE)
        found, plain = ops.attack_coefficients(*given), formulas.attack_coefficients(*given)
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6, equal_nan=True)
        if dirty != dirty:
            sign = found[1]
            hit = sign[0, 1] if where != "clean" else sign[1]  # the target of the other side
            assert hit.isnan().all()


@NAMES
def test_derivative(name: str, device: str) -> None:
    clean, now = logits(2, torch.float64, device)
    now.requires_grad_()

    def coefficient(now: Tensor) -> Tensor:
        return ops.attack_coefficients(clean, now, None, pair(name, name), "batch", SCALE)[0]

    def plain(now: Tensor) -> Tensor:
        return formulas.attack_coefficients(clean, now, None, pair(name, name), "batch", SCALE)[0]

    assert torch.autograd.gradcheck(coefficient, now)
    if name.startswith("gan."):  # the others have no second derivative, or a constant one
        assert torch.autograd.gradgradcheck(coefficient, now)
    weight = torch.randn_like(now)
    found = torch.func.grad(lambda t: (weight * coefficient(t)).sum())(now.detach())
    expected = torch.func.grad(lambda t: (weight * plain(t)).sum())(now.detach())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    _, pullback = torch.func.vjp(coefficient, now.detach())
    torch.testing.assert_close(pullback(weight)[0], expected, rtol=1e-12, atol=1e-12)
    assert not ops.attack_coefficients(clean, now, None, pair(name, name), "batch", SCALE)[1].requires_grad


def test_only_now_has_a_derivative(device: str) -> None:
    clean, now = (t.requires_grad_() for t in logits(7, torch.float64, device))
    coefficient, *_ = ops.attack_coefficients(clean, now, None, pair("gan.g1", "gan.g2"), "batch", SCALE)
    assert torch.autograd.grad(coefficient.sum(), clean, allow_unused=True) == (None,)


@REDUCTIONS
@pytest.mark.parametrize("in_dims", [(0, 0, 0), (None, 1, None), (2, None, 1)])
def test_vmap_is_a_loop(reduction: str, in_dims: tuple[int | None, ...], device: str) -> None:
    mapped = []
    for axis, shape in zip(in_dims, ((2, 9), (2, 9), (2,)), strict=True):
        full = torch.randn(*shape if axis is None else (*shape[:axis], 3, *shape[axis:]), device=device)
        mapped.append(full)

    def attack(clean: Tensor, now: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return ops.attack_coefficients(clean, now, targets, pair("gan.g1", "gan.g2"), reduction, SCALE)

    found = torch.vmap(attack, in_dims)(*mapped)
    for i in range(3):
        one = [t if axis is None else t.select(axis, i) for t, axis in zip(mapped, in_dims, strict=True)]
        for ours, theirs in zip(found, attack(*one), strict=True):
            assert torch.equal(ours[i], theirs)


def test_groups_and_vmap_over_them(device: str) -> None:
    clean, now = torch.randn(2, 3, 4, 2, 11, device=device)  # (3, 4, 2, 11) each

    def attack(clean: Tensor, now: Tensor) -> tuple[Tensor, ...]:
        return ops.attack_coefficients(clean, now, None, pair("hinge.g1", "lsgan.g2"), "batch", SCALE)

    found = torch.vmap(attack)(clean, now)
    for i, j in itertools.product(range(3), range(4)):
        for ours, theirs in zip(found, attack(clean[i, j], now[i, j]), strict=True):
            assert torch.equal(ours[i, j], theirs)
        for ours, theirs in zip(
            found,
            formulas.attack_coefficients(
                clean[i], now[i], None, pair("hinge.g1", "lsgan.g2"), "batch", SCALE
            ),
            strict=True,
        ):
            torch.testing.assert_close(ours[i], theirs)


def test_strided_logits_and_nothing_left_unwritten(device: str, deterministic: None) -> None:
    clean, now = (t.repeat_interleave(2, 1)[:, ::2] for t in logits(1500, device=device))
    found = [
        ops.attack_coefficients(clean, now, None, pair("gan.g1", "gan.g2"), "sample", SCALE) for _ in range(2)
    ]
    dense = ops.attack_coefficients(
        clean.contiguous(), now.contiguous(), None, pair("gan.g1", "gan.g2"), "sample", SCALE
    )
    for first, second, third in zip(*found, dense, strict=True):
        assert torch.isfinite(first).all()
        assert torch.equal(first, second)
        assert torch.equal(first, third)


@REDUCTIONS
def test_nothing_around_the_tensors_is_touched(reduction: str, device: str) -> None:
    clean, now = logits(37, device=device)
    given = (None, pair("gan.g1", "hinge.g2"), reduction, SCALE)
    with nothing_else_written():
        found = ops.attack_coefficients(surrounded(clean), surrounded(now), *given)
    torch.testing.assert_close(found, formulas.attack_coefficients(clean, now, *given))


@pytest.mark.parametrize("with_targets", [False, True])
def test_operator_is_well_formed(with_targets: bool, device: str) -> None:
    import fastdat.kernels.attack_coefficients  # noqa: F401 - makes the operator

    clean, now = logits(6, torch.float64, device)
    targets = torch.randn(2, dtype=torch.float64, device=device) if with_targets else None
    given = (clean, now.requires_grad_(), targets, "gan.g1", "lsgan.g2", "batch", SCALE)
    torch.library.opcheck(torch.ops.fastdat.attack_coefficients.default, given)


@pytest.mark.slow
def test_compiled_with_its_derivative(device: str) -> None:
    clean, now = logits(6, torch.float64, device)

    def penalty(now: Tensor) -> Tensor:
        coefficient, sign, _ = ops.attack_coefficients(
            clean, now, None, pair("gan.g1", "gan.g2"), "batch", SCALE
        )
        return (coefficient.square() + sign).sum()

    compiled = torch.compile(torch.func.grad(penalty), fullgraph=True)
    torch.testing.assert_close(compiled(now), torch.func.grad(penalty)(now))


# --- what needs no kernel -----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(
    real=st.lists(st.floats(-30, 30), min_size=1, max_size=8),
    shift=st.floats(-3, 3),
    names=st.tuples(st.sampled_from(list(TABLE)), st.sampled_from(list(TABLE))),
    reduction=st.sampled_from(formulas.REDUCTIONS),
)
def test_definition(real: list[float], shift: float, names: tuple[str, str], reduction: str) -> None:
    """``dA/dD`` of ``A = n |mean a - t|`` or ``sum |a_i - t|``, by autograd, times ``-scale``."""
    clean = torch.tensor([real, [shift - r for r in real]], dtype=torch.float64)
    now = clean.clone().requires_grad_()
    a_real, a_fake = (TABLE[name] for name in names)
    targets = a_real(clean[1]).mean(), a_fake(clean[0]).mean()
    residual = torch.stack([a_real(now[0]) - targets[0], a_fake(now[1]) - targets[1]])
    if reduction == "batch":
        values = a_real(now[0]).mean() - targets[0], a_fake(now[1]).mean() - targets[1]
        residual = torch.stack(values)[:, None]
        objective = residual.abs().sum() * len(real)
    else:
        objective = residual.abs().sum()
    expected = -SCALE * torch.autograd.grad(objective, now)[0]
    coefficient, sign, target = formulas.attack_coefficients(clean, now, None, pair(*names), reduction, SCALE)
    assert torch.equal(target, torch.stack(targets))
    assert torch.equal(sign, torch.sign(residual).expand_as(sign))
    torch.testing.assert_close(coefficient, expected, rtol=1e-12, atol=1e-14)


WRONG = {
    "now must be logits": {"now": torch.randn(3, 4), "clean": torch.randn(3, 4)},
    r"n > 0, got \(2, 0\)": {"now": torch.randn(2, 0), "clean": torch.randn(2, 0)},
    "clean must have the shape of now": {"clean": torch.randn(2, 5)},
    "targets must be": {"targets": torch.randn(1)},
    "all be float32 or all float64": {"clean": torch.randn(2, 4).bfloat16()},
    "reduction must be one of batch, sample, got 'mean'": {"reduction": "mean"},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments(message: str) -> None:
    given = {
        "clean": torch.randn(2, 4), "now": torch.randn(2, 4), "targets": None,
        "attacked": pair("identity", "identity"), "reduction": "batch", "scale": 1.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        ops.attack_coefficients(**(given | WRONG[message]))


def test_unknown_code() -> None:
    with pytest.raises(
        ValueError, match=r"unknown attacked function 'hinge': choose from identity, hinge.g1"
    ):
        formulas.function_of_code("hinge")


@REDUCTIONS
def test_functions_and_means_of_a_caller(reduction: str) -> None:
    """A function outside the table, and a batch of which another rank has the other half."""
    clean, now = logits(8, torch.float64)
    attacked = (lambda t: t.tanh(), lambda t: t.exp())
    whole = ops.attack_coefficients(clean, now, None, attacked, reduction, SCALE)
    here, rest = (slice(0, 3), slice(3, 8))
    calls = []

    def means(values: list[Tensor]) -> list[Tensor]:
        calls.append(len(values))
        others = [a(side[rest]) for a, side in zip(attacked, (clean[1], clean[0]), strict=True)]
        others += [a(side[rest]) for a, side in zip(attacked, now, strict=True)]
        return [torch.cat([v, o]).mean() for v, o in zip(values, others[: len(values)], strict=True)]

    part = ops.attack_coefficients(clean[:, here], now[:, here], None, attacked, reduction, SCALE, means)
    for ours, expected in zip(part[:2], whole[:2], strict=True):
        torch.testing.assert_close(ours, expected[:, here])
    torch.testing.assert_close(part[2], whole[2])
    assert calls == [4 if reduction == "batch" else 2]
