"""GAN losses: D's side as g1, g2 of Eq. (1) or as a function of pairs, and the generator's side of each.

D maximises ``mean g1(D(x_r)) + mean g2(D(x_f))``; G minimises ``mean generator(D(G(z)))``. A pair loss compares each
real sample with a fake one: D maximises ``mean pair(D(x_r), D(x_f))``, and G minimises
``mean generator_pair(D(x_f), D(x_r))``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastdat.kernels import logit_functions as table

if TYPE_CHECKING:
    from typing_extensions import TypeIs


@runtime_checkable
class Loss(Protocol):
    """What ``dat_step`` needs of a loss. Both methods are elementwise, differentiable, and maximised by D.

    Compiled steps are cached by the loss object: create it once, not once a step.
    """

    def g1(self, logits: Tensor) -> Tensor:
        """Value of real logits, shape (N,) -> (N,)."""
        ...

    def g2(self, logits: Tensor) -> Tensor:
        """Value of fake logits, shape (N,) -> (N,)."""
        ...


@runtime_checkable
class PairLoss(Protocol):
    """A loss of pairs, in place of ``Loss``: sample i of the real side with sample i of the fake side.

    The method is elementwise over the pairs, differentiable, and maximised by D. An optional method
    ``generator_pair(logits_fake, logits_real) -> (N,)`` is minimised by G; without it, that is
    ``-pair(logits_fake, logits_real)``, the mirror of D's. Compiled steps are cached by the object, as with ``Loss``.
    """

    def pair(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """Value of pairs, shapes (N,), (N,) -> (N,)."""
        ...


AnyLoss: TypeAlias = Loss | PairLoss


@dataclass(frozen=True, slots=True)
class NamedLoss:
    """A loss that can be chosen by its name; its methods are elementwise, (N,) -> (N,)."""

    name: str
    g1: Callable[[Tensor], Tensor]
    g2: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class NamedPairLoss:
    """A pair loss that can be chosen by its name; its methods are elementwise, (N,), (N,) -> (N,)."""

    name: str
    pair: Callable[[Tensor, Tensor], Tensor]
    generator_pair: Callable[[Tensor, Tensor], Tensor]


# g1 and g2 come from the one table that the kernels read too. The comments show what the functions compute.
HINGE = NamedLoss("hinge", table.HINGE_G1, table.HINGE_G2, lambda t: -t)  # -relu(1 - t), -relu(1 + t)
#: Vanilla GAN; the generator's side is the non-saturating one.
GAN = NamedLoss(
    "gan", table.GAN_G1, table.GAN_G2, lambda t: F.softplus(-t)
)  # log sigmoid(t), log(1 - sigmoid(t))
LSGAN = NamedLoss("lsgan", table.LSGAN_G1, table.LSGAN_G2, lambda t: (t - 1) ** 2)  # -(t - 1)^2, -t^2
WGAN = NamedLoss("wgan", table.WGAN_G1, table.WGAN_G2, lambda t: -t)  # t, -t

# The losses of a D that ends in a sigmoid s, written for its logits: with gan, these are the losses of the code base
# that the paper names for Table III. 1 - s(t) is s(-t), which keeps its digits where s(t) is close to 1.
LSGAN_SIGMOID = NamedLoss(
    "lsgan-sigmoid",
    lambda t: -(torch.sigmoid(-t) ** 2),  # -(1 - s(t))^2
    lambda t: -(torch.sigmoid(t) ** 2),  # -s(t)^2
    lambda t: torch.sigmoid(-t) ** 2,
)
WGAN_SIGMOID = NamedLoss(
    "wgan-sigmoid", torch.sigmoid, lambda t: -torch.sigmoid(t), lambda t: -torch.sigmoid(t)
)

#: Relativistic pairing GAN (RpGAN: Jolicoeur-Martineau 2019; R3GAN: Huang et al. 2024): log sigmoid(D(x_r) - D(x_f)).
RPGAN = NamedPairLoss(
    "rpgan",
    lambda logits_real, logits_fake: -F.softplus(logits_fake - logits_real),
    lambda logits_fake, logits_real: F.softplus(logits_real - logits_fake),
)

LOSSES: dict[str, NamedLoss | NamedPairLoss] = {
    loss.name: loss for loss in (HINGE, GAN, LSGAN, WGAN, LSGAN_SIGMOID, WGAN_SIGMOID, RPGAN)
}


def is_pair(loss: AnyLoss) -> TypeIs[PairLoss]:
    """Whether a loss of :func:`get_loss` compares pairs."""
    return hasattr(loss, "pair")


def get_loss(loss: str | AnyLoss) -> AnyLoss:
    """The loss called ``loss``, or ``loss`` itself where it is one.

    Raises:
        ValueError: no loss has that name.
        TypeError: neither a name nor an object with g1 and g2, or with pair; or one with all of them.
    """
    if isinstance(loss, str):
        if loss not in LOSSES:
            near = difflib.get_close_matches(loss.lower(), LOSSES, 1, 0.5)
            raise ValueError(
                f"unknown loss {loss!r}{f', did you mean {near[0]!r}?' if near else ''}: choose one of "
                f"{', '.join(LOSSES)}, or pass an object with g1 and g2, or with pair"
            )
        return LOSSES[loss]
    _check_own(loss)
    return loss


def _check_own(loss: Any) -> None:
    of_sides, of_pairs = isinstance(loss, Loss), isinstance(loss, PairLoss)
    if isinstance(loss, type) and (of_sides or of_pairs):
        raise TypeError(
            f"loss must be an object with methods g1 and g2, or with pair, got the class {loss.__name__} itself: make "
            f"one, {loss.__name__}()"
        )
    of_sides = of_sides and callable(loss.g1) and callable(loss.g2)
    of_pairs = of_pairs and callable(loss.pair)
    if not of_sides and not of_pairs:
        raise TypeError(
            f"loss must be one of {', '.join(LOSSES)} or an object with methods g1 and g2, or with pair "
            f"(see fastdat.losses.Loss and PairLoss), got {type(loss).__name__}"
        )
    if of_sides and hasattr(loss, "pair"):
        raise TypeError(
            f"loss {type(loss).__name__} has g1 and g2 and also pair, so that it is not clear which D maximises: make "
            "two losses of it"
        )
    try:
        hash(loss)
    except TypeError as error:
        raise TypeError(
            "a loss must be hashable, since compiled steps are kept by it: make "
            f"{type(loss).__name__} a plain class or a frozen dataclass"
        ) from error


def discriminator_loss(loss: AnyLoss, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """``-(mean g1(D(x_r)) + mean g2(D(x_f)))``, Eq. (1) with the sign that D minimises; ``-mean pair(D(x_r), D(x_f))``
    of a pair loss. Logits (N,) -> scalar.
    """
    if is_pair(loss):
        return -loss.pair(logits_real, logits_fake).mean()
    return -(loss.g1(logits_real).mean() + loss.g2(logits_fake).mean())


def generator_loss(loss: str | AnyLoss, logits_fake: Tensor, logits_real: Tensor | None = None) -> Tensor:
    """What G minimises: ``mean generator(D(G(z)))``, or ``-mean g1(D(G(z)))`` of a loss that gives no generator.

    Of a pair loss: ``mean generator_pair(D(G(z)), D(x_r))``, or ``-mean pair(D(G(z)), D(x_r))``.

    Args:
        loss: name or loss.
        logits_fake: (N,) or (N, 1).
        logits_real: the same number of logits of real samples, which only a pair loss needs.

    Returns:
        A scalar.

    Raises:
        ValueError: a pair loss without as many real logits.
    """
    return generator_mean(get_loss(loss), logits_fake, logits_real)


def generator_mean(loss: AnyLoss, logits_fake: Tensor, logits_real: Tensor | None = None) -> Tensor:
    """:func:`generator_loss` of a loss that :func:`get_loss` has checked: it can be traced in a compiled step."""
    if is_pair(loss):
        fake, real = _paired(loss, logits_fake, logits_real)
        of_pairs = getattr(loss, "generator_pair", None)
        values: Tensor = -loss.pair(fake, real) if of_pairs is None else of_pairs(fake, real)
        return values.mean()
    of_generator = getattr(loss, "generator", None)
    values = -loss.g1(logits_fake) if of_generator is None else of_generator(logits_fake)
    return values.mean()


def _paired(loss: PairLoss, logits_fake: Tensor, logits_real: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both as (N,): (N, 1) beside (N,) would make N x N pairs."""
    name = getattr(loss, "name", type(loss).__name__)
    if logits_real is None:
        raise ValueError(
            f"the loss {name} compares fakes with reals in G's step too: pass D's logits of as many real samples, "
            "generator_loss(loss, logits_fake, logits_real)"
        )
    if logits_real.numel() != logits_fake.numel():
        raise ValueError(
            f"the loss {name} compares each fake with one real sample, got {logits_fake.numel()} logits of fakes and "
            f"{logits_real.numel()} of reals: take as many of both"
        )
    return logits_fake.flatten(), logits_real.flatten()


def loss_slopes(loss: AnyLoss, logits_real: Tensor, logits_fake: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of D's loss, summed over the samples without the mean, for each real and each fake logit.

    The sum is ``-sum_i (g1(D(x_r,i)) + g2(D(x_f,i)))`` or ``-sum_i pair(D(x_r,i), D(x_f,i))``. The slopes can be
    differentiated, and traced in a compiled step. Logits (N,), (N,) -> slopes (N,), (N,).
    """
    if is_pair(loss):
        values, pullback = torch.func.vjp(lambda *sides: loss.pair(*sides), logits_real, logits_fake)  # type: ignore[misc]
        of_real, of_fake = pullback(-torch.ones_like(values))
        return of_real, of_fake
    return -table.slope(loss.g1, logits_real), -table.slope(loss.g2, logits_fake)
