"""GAN losses as the pair g1, g2 of Eq. (1), and the generator's side of each.

D maximises ``mean g1(D(x_r)) + mean g2(D(x_f))``; G minimises ``mean generator(D(G(z)))``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor

from fastdat.kernels import logit_functions as table


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


@dataclass(frozen=True, slots=True)
class NamedLoss:
    """A loss that can be chosen by its name; its methods are elementwise, (N,) -> (N,)."""

    name: str
    g1: Callable[[Tensor], Tensor]
    g2: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


# g1 and g2 come from the one table that the kernels read too. The comments show what the functions compute.
HINGE = NamedLoss("hinge", table.HINGE_G1, table.HINGE_G2, lambda t: -t)  # -relu(1 - t), -relu(1 + t)
#: Vanilla GAN; the generator's side is the non-saturating one.
GAN = NamedLoss(
    "gan", table.GAN_G1, table.GAN_G2, lambda t: F.softplus(-t)
)  # log sigmoid(t), log(1 - sigmoid(t))
LSGAN = NamedLoss("lsgan", table.LSGAN_G1, table.LSGAN_G2, lambda t: (t - 1) ** 2)  # -(t - 1)^2, -t^2
WGAN = NamedLoss("wgan", table.WGAN_G1, table.WGAN_G2, lambda t: -t)  # t, -t

LOSSES = {loss.name: loss for loss in (HINGE, GAN, LSGAN, WGAN)}


def get_loss(loss: str | Loss) -> Loss:
    """The loss called ``loss``, or ``loss`` itself where it is one.

    Raises:
        ValueError: no loss has that name.
        TypeError: neither a name nor an object with g1 and g2.
    """
    if isinstance(loss, str):
        if loss not in LOSSES:
            near = difflib.get_close_matches(loss.lower(), LOSSES, 1, 0.5)
            raise ValueError(
                f"unknown loss {loss!r}{f', did you mean {near[0]!r}?' if near else ''}: choose one of "
                f"{', '.join(LOSSES)}, or pass an object with g1 and g2"
            )
        return LOSSES[loss]
    if isinstance(loss, type) and isinstance(loss, Loss):
        raise TypeError(
            f"loss must be an object with methods g1 and g2, got the class {loss.__name__} itself: make one, "
            f"{loss.__name__}()"
        )
    if not isinstance(loss, Loss) or not (callable(loss.g1) and callable(loss.g2)):
        raise TypeError(
            f"loss must be one of {', '.join(LOSSES)} or an object with methods g1 and g2 "
            f"(see fastdat.losses.Loss), got {type(loss).__name__}"
        )
    try:
        hash(loss)
    except TypeError as error:
        raise TypeError(
            "a loss must be hashable, since compiled steps are kept by it: make "
            f"{type(loss).__name__} a plain class or a frozen dataclass"
        ) from error
    return loss


def discriminator_loss(loss: Loss, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """``-(mean g1(D(x_r)) + mean g2(D(x_f)))``, Eq. (1) with the sign that D minimises. Logits (N,) -> scalar."""
    return -(loss.g1(logits_real).mean() + loss.g2(logits_fake).mean())


def generator_loss(loss: str | Loss, logits_fake: Tensor) -> Tensor:
    """What G minimises: ``mean generator(D(G(z)))``, or ``-mean g1(D(G(z)))`` of a loss that gives no generator.

    Logits (N,) or (N, 1) -> scalar.
    """
    loss = get_loss(loss)
    of_generator = getattr(loss, "generator", None)
    values: Tensor = -loss.g1(logits_fake) if of_generator is None else of_generator(logits_fake)
    return values.mean()
