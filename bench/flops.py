"""FLOPs of a step, counted as it runs, and the fewest that compute it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.eager_baselines import sngan_loss
from bench.workloads import Batch, LossOf, Step, Variant, Workload, gradient_step


class CountFlops(TorchDispatchMode):
    """Adds up the FLOPs of matrix products and convolutions, by torch's own formulas.

    `torch.utils.flop_counter.FlopCounterMode` also attributes them to modules, with hooks that `torch.autograd.grad`
    inside the step does not survive.
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
    """F: one forward pass of D over real and fake."""
    counter = CountFlops()
    with counter, torch.no_grad():
        copy.deepcopy(D)(torch.cat(batch))
    return counter.total


def of_loss(loss_of: LossOf, D: nn.Module, batch: Batch, workload: Workload) -> int:
    """Forward and backward pass of a loss that is not compiled; what a first call does once for a D is left out."""
    D = copy.deepcopy(D)
    gradient_step(loss_of, D, batch, workload)
    counter = CountFlops()
    with counter:
        gradient_step(loss_of, D, batch, workload)
    return counter.total


def of_step(step: Step, batch: Batch) -> int:
    """A variant, as it runs uncompiled: the compiler fuses what lies between these operations and keeps them."""
    return of_loss(step.variant.eager, step.D, batch, step.workload)


def floor(variant: Variant, D: nn.Module, batch: Batch, workload: Workload) -> int:
    """The fewest FLOPs that compute a variant's gradients.

    Whole passes of F each, but for the last gradient, that of the layers which see the image: a step without second
    order needs none there. What it would cost is read off the plain step, which is 3F without it.
    """
    forward = of_forward(D, batch)
    if variant.image_gradient:
        return variant.passes * forward
    image_layers = 3 * forward - of_loss(sngan_loss, D, batch, workload)
    return variant.passes * forward - image_layers
