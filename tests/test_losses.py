"""The named losses, a user's own, and losses of pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastdat.losses import (
    LOSSES,
    Loss,
    PairLoss,
    discriminator_loss,
    generator_loss,
    get_loss,
    is_pair,
    loss_slopes,
)

T = torch.linspace(-3, 4, 15, dtype=torch.float64)
S = 1 / (1 + torch.exp(-T))
FORMULAS = {
    "hinge": (-F.relu(1 - T), -F.relu(1 + T), -T),
    "gan": (torch.log(torch.sigmoid(T)), torch.log(1 - torch.sigmoid(T)), -torch.log(torch.sigmoid(T))),
    "lsgan": (-((T - 1) ** 2), -(T**2), (T - 1) ** 2),
    "wgan": (T, -T, -T),
    "lsgan-sigmoid": (-((1 - S) ** 2), -(S**2), (1 - S) ** 2),
    "wgan-sigmoid": (S, -S, -S),
}
OF_SIDES = [name for name, loss in LOSSES.items() if not is_pair(loss)]
#: Logits of both sides, no two alike, neither at a kink of the hinge.
REAL = torch.tensor([-1.7, 0.3, 0.2, 2.5], dtype=torch.float64)
FAKE = torch.tensor([0.4, -2.2, 1.6, 0.9], dtype=torch.float64)


def label(loss: Any) -> str:
    return loss if isinstance(loss, str) else type(loss).__name__


class Own:
    """A user's own loss, which says nothing of the generator."""

    def g1(self, t: Tensor) -> Tensor:
        return -torch.exp(-t)

    def g2(self, t: Tensor) -> Tensor:
        return 1 - t


class OwnPair:
    """A user's own pair loss: not a function of the difference, and no generator's side."""

    def pair(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        return logits_real * 3 - logits_real * logits_fake**2


class OwnPairWithGenerator(OwnPair):
    def generator_pair(self, logits_fake: Tensor, logits_real: Tensor) -> Tensor:
        return logits_fake * 5 + logits_real


@pytest.mark.parametrize("name", OF_SIDES)
def test_formulas(name: str) -> None:
    loss: Any = get_loss(name)
    g1, g2, generator = FORMULAS[name]
    torch.testing.assert_close(loss.g1(T), g1)
    torch.testing.assert_close(loss.g2(T), g2)
    torch.testing.assert_close(generator_loss(name, T), generator.mean())
    torch.testing.assert_close(
        discriminator_loss(loss, T, T + 1), -(loss.g1(T).mean() + loss.g2(T + 1).mean())
    )


def test_gan_loss_keeps_its_gradient_far_out() -> None:
    t = torch.tensor([-200.0, 200.0], requires_grad=True)
    loss: Any = get_loss("gan")
    (grad,) = torch.autograd.grad(loss.g1(t).sum(), t)
    torch.testing.assert_close(grad, torch.tensor([1.0, 0.0]))


def test_sigmoid_keeps_its_digits_far_out() -> None:
    """In float32, 1 - s(t) is zero from t = 17 on; (1 - s(20))^2 is e^-40."""
    t = torch.tensor([20.0])
    loss: Any = get_loss("lsgan-sigmoid")
    torch.testing.assert_close(loss.g1(t), torch.tensor([-math.exp(-40)]), rtol=1e-5, atol=0)
    torch.testing.assert_close(loss.generator(t), torch.tensor([math.exp(-40)]), rtol=1e-5, atol=0)


def test_own_loss() -> None:
    own = Own()
    assert isinstance(own, Loss)
    assert not is_pair(own)
    assert get_loss(own) is own
    torch.testing.assert_close(generator_loss(own, T), torch.exp(-T).mean())


# --- losses of pairs -------------------------------------------------------------------------------------------------


def test_rpgan_by_hand() -> None:
    """log(1 + e^-d) of the differences ln 3, 0 and -ln 7: ln 4/3, ln 2 and ln 8 for D; ln 4, ln 2, ln 8/7 for G."""
    real = torch.tensor([math.log(6), 0.5, -math.log(7)], dtype=torch.float64)
    fake = torch.tensor([math.log(2), 0.5, 0.0], dtype=torch.float64)
    of_d = (math.log(4 / 3) + math.log(2) + math.log(8)) / 3
    of_g = (math.log(4) + math.log(2) + math.log(8 / 7)) / 3
    loss = get_loss("rpgan")
    assert is_pair(loss)
    assert discriminator_loss(loss, real, fake).item() == pytest.approx(of_d, abs=1e-14)
    assert generator_loss("rpgan", fake, real).item() == pytest.approx(of_g, abs=1e-14)


def test_rpgan_keeps_its_gradient_far_out() -> None:
    real = torch.tensor([-200.0, 200.0], requires_grad=True)
    (grad,) = torch.autograd.grad(discriminator_loss(get_loss("rpgan"), real, torch.ones(2)), real)
    torch.testing.assert_close(grad, torch.tensor([-0.5, 0.0]))


def test_own_pair_loss() -> None:
    own = OwnPair()
    assert isinstance(own, PairLoss)
    assert get_loss(own) is own
    expected = -(3 * REAL - REAL * FAKE**2).mean()
    torch.testing.assert_close(discriminator_loss(own, REAL, FAKE), expected, rtol=1e-14, atol=0)


def test_generators_side_of_a_pair_loss_is_the_mirror_unless_given() -> None:
    mirror = -(3 * FAKE - FAKE * REAL**2).mean()
    torch.testing.assert_close(generator_loss(OwnPair(), FAKE, REAL), mirror, rtol=1e-14, atol=0)
    given = (5 * FAKE + REAL).mean()
    torch.testing.assert_close(generator_loss(OwnPairWithGenerator(), FAKE, REAL), given, rtol=1e-14, atol=0)


@pytest.mark.parametrize("loss", ["rpgan", OwnPair(), OwnPairWithGenerator()], ids=label)
def test_columns_of_logits_are_paired_row_by_row(loss: str | PairLoss) -> None:
    expected = generator_loss(loss, FAKE, REAL)
    assert torch.equal(generator_loss(loss, FAKE[:, None], REAL), expected)
    assert torch.equal(generator_loss(loss, FAKE, REAL[:, None]), expected)


def test_a_loss_of_sides_ignores_the_reals_in_the_generators_step() -> None:
    assert torch.equal(generator_loss("lsgan", FAKE, REAL), generator_loss("lsgan", FAKE))


# --- slopes ----------------------------------------------------------------------------------------------------------


def sum_of_samples(loss: Any, real: Tensor, fake: Tensor) -> Tensor:
    if is_pair(loss):
        return -loss.pair(real, fake).sum()
    return -(loss.g1(real) + loss.g2(fake)).sum()


def difference_quotients(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-5) -> Tensor:
    moves = torch.eye(len(at), dtype=at.dtype) * step
    return torch.stack([(function(at + move) - function(at - move)) / (2 * step) for move in moves])


@pytest.mark.parametrize("given", [*LOSSES, Own(), OwnPair()], ids=label)
def test_slopes_are_those_of_the_sum(given: str | Loss | PairLoss) -> None:
    loss = get_loss(given)
    slopes = loss_slopes(loss, REAL, FAKE)
    expected = (
        difference_quotients(lambda t: sum_of_samples(loss, t, FAKE), REAL),
        difference_quotients(lambda t: sum_of_samples(loss, REAL, t), FAKE),
    )
    torch.testing.assert_close(slopes, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("given", [*LOSSES, Own(), OwnPair()], ids=label)
def test_slopes_can_be_differentiated(given: str | Loss | PairLoss) -> None:
    loss = get_loss(given)
    weights = torch.tensor([[1.5, -0.5, 2.0, 0.7], [0.3, 1.1, -0.9, 2.2]], dtype=torch.float64)

    def weighted(real: Tensor, fake: Tensor) -> Tensor:
        of_real, of_fake = loss_slopes(loss, real, fake)
        return weights[0] @ of_real + weights[1] @ of_fake

    grads = torch.func.grad(weighted, argnums=(0, 1))(REAL, FAKE)
    expected = (
        difference_quotients(lambda t: weighted(t, FAKE), REAL),
        difference_quotients(lambda t: weighted(REAL, t), FAKE),
    )
    torch.testing.assert_close(grads, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lsgan-sigmoid", "rpgan"])
def test_slopes_are_traced_into_one_graph(name: str) -> None:
    loss = get_loss(name)
    traced = torch.compile(lambda *sides: loss_slopes(loss, *sides), backend="eager", fullgraph=True)
    torch.testing.assert_close(traced(REAL, FAKE), loss_slopes(loss, REAL, FAKE), rtol=0, atol=0)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_name_close_to_one_is_suggested() -> None:
    with pytest.raises(
        ValueError, match=r"'rp-gan', did you mean 'rpgan'\?: choose one of hinge, gan, .* or with pair"
    ):
        get_loss("rp-gan")


@pytest.mark.parametrize("loss", [Own, OwnPair])
def test_a_class_is_not_a_loss(loss: Any) -> None:
    with pytest.raises(
        TypeError, match=rf"got the class {loss.__name__} itself: make one, {loss.__name__}\(\)"
    ):
        get_loss(loss)


def test_neither_kind_of_loss() -> None:
    with pytest.raises(TypeError, match=r"methods g1 and g2, or with pair .* got Tensor"):
        get_loss(T)  # type: ignore[arg-type]

    class Number:
        pair = 3

    with pytest.raises(TypeError, match=r"methods g1 and g2, or with pair .* got Number"):
        get_loss(Number())  # type: ignore[arg-type]


def test_both_kinds_of_loss() -> None:
    class Both(Own, OwnPair):
        pass

    with pytest.raises(TypeError, match="Both has g1 and g2 and also pair"):
        get_loss(Both())


def test_unhashable_loss() -> None:
    @dataclass
    class Unhashable:
        def g1(self, t: Tensor) -> Tensor:
            return t

        g2 = g1

    @dataclass
    class UnhashablePair(OwnPair):
        pass

    with pytest.raises(TypeError, match="Unhashable a plain class or a frozen dataclass"):
        get_loss(Unhashable())
    with pytest.raises(TypeError, match="UnhashablePair a plain class or a frozen dataclass"):
        get_loss(UnhashablePair())


def test_the_generators_step_of_a_pair_loss_needs_as_many_reals() -> None:
    with pytest.raises(ValueError, match=r"the loss rpgan compares fakes with reals .* pass D's logits"):
        generator_loss("rpgan", FAKE)
    with pytest.raises(
        ValueError, match="OwnPair compares each fake with one real sample, got 4 logits of fakes and 3"
    ):
        generator_loss(OwnPair(), FAKE, REAL[:3])
