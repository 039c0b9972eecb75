"""A loss whose gradients are known already, attached to autograd. It can be differentiated once.

Without a word autograd would take the gradients for constants in a second derivative: a penalty on the gradient of a
sum of losses would lose the share of this one. So a second derivative is an error, and only if it is really taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor


def attach(evaluate: Callable[[], tuple[Tensor, list[Tensor]]], leaves: Sequence[Tensor]) -> Tensor:
    """The loss that ``evaluate`` computes together with its gradient for each of ``leaves``."""
    loss: Tensor = _Step.apply(evaluate, *leaves)  # type: ignore[no-untyped-call]
    return loss


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, evaluate: Callable[[], tuple[Tensor, list[Tensor]]], *leaves: Tensor) -> Tensor:
        loss, grads = evaluate()
        ctx.save_for_backward(*grads)
        ctx.leaves = leaves  # not saved: they may change in place before the backward pass
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled():
            return None, *torch._foreach_mul(ctx.saved_tensors, grad_loss)
        with torch.no_grad():  # create_graph=True
            grads = torch._foreach_mul(ctx.saved_tensors, grad_loss)
        return None, *_Final.apply(len(grads), *grads, grad_loss, *ctx.leaves)  # type: ignore[no-untyped-call]


class _Final(torch.autograd.Function):
    """Gradients that depend on the leaves in a way that is not known here."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tensors[:count]

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> NoReturn:
        raise RuntimeError(
            "the gradient of a dat_step loss, or of a generator_step loss, cannot be differentiated again "
            "(create_graph=True): it was computed together with the loss, and nothing is known of how it depends on "
            "D's parameters and on the samples. Leave that loss out of what is differentiated twice, pass a gradient "
            "penalty as dat_step(..., regularizers=...), take another derivative inside aux_loss with torch.func.grad, "
            "or use fastdat.reference.dat_step or generator_step, whose loss can be differentiated again"
        )
