"""FLOPs of a step, counted while it runs, and the least number that computes the same gradients."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.step.eager_baselines import sngan_loss
from bench.step.workloads import Batch, LossOf, Step, Variant, Workload, gradient_step


class CountFlops(TorchDispatchMode):
    """Adds up the FLOPs of matrix products and convolutions, by torch's own formulas.

    `torch.utils.flop_counter.FlopCounterMode` does not work here: it attributes FLOPs to modules with hooks that break
    `torch.autograd.grad` inside the step.
    """

    total: int

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=out))
        return out


def of_forward(D: nn.Module, batch: Batch) -> int:
    """F: FLOPs of one forward pass of D over real and fake."""
    counter = CountFlops()
    with counter, torch.no_grad():
        copy.deepcopy(D)(torch.cat(batch))
    return counter.total


def of_loss(loss_of: LossOf, D: nn.Module, batch: Batch, workload: Workload) -> int:
    """FLOPs of an uncompiled loss and its backward pass, without the work that only the first call for a D does."""
    D = copy.deepcopy(D)
    gradient_step(loss_of, D, batch, workload)
    counter = CountFlops()
    with counter:
        gradient_step(loss_of, D, batch, workload)
    return counter.total


def of_step(step: Step, batch: Batch) -> int:
    """FLOPs of a variant, uncompiled: the compiler keeps convolutions and matrix products, and fuses the rest."""
    return of_loss(step.variant.eager, step.D, batch, step.workload)


def floor(variant: Variant, D: nn.Module, batch: Batch, workload: Workload) -> int:
    """The least number of FLOPs that computes a variant's gradients.

    It is a number of passes of F each. A first-order step does not need the gradient for the images in its last
    backward pass, so that part is subtracted; the plain step, which costs 3F without it, shows how much it is.
    """
    forward = of_forward(D, batch)
    if variant.image_gradient:
        return variant.passes * forward
    image_layers = 3 * forward - of_loss(sngan_loss, D, batch, workload)
    return variant.passes * forward - image_layers
