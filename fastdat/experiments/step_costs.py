"""What one discriminator step costs: FLOPs, time and memory, by plain autograd and by fastdat."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fastdat import reference
from fastdat.engine.step import dat_step
from fastdat.experiments.cost_rows import CostRow
from fastdat.experiments.step_counters import CountFlops, peak_bytes
from fastdat.nets import GradientNormalised, SANLinear, SNGANDiscriminator
from fastdat.regularizers.term_registry import make_term

Way = Literal["plain", "eager", "compiled"]
"""``"plain"``: :mod:`fastdat.reference`, which asks autograd for each gradient where a formula needs it and shares
nothing; ``"eager"`` and ``"compiled"``: ``fastdat.dat_step``."""


@dataclass(frozen=True)
class Size:
    """What the steps are taken with: SNGAN's D at 32 pixels.

    Args:
        ndf: its width.
        batch: reals, and as many fakes.
    """

    ndf: int
    batch: int


class Workload:
    """One D and one batch, the same for all rows; images are uniform noise.

    D's last bias centres the logits at 0: those of new weights are so large that hinge and its attacks would see no
    slope.

    Args:
        size: of D and batch.
        device, dtype: of both.
    """

    def __init__(self, size: Size, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._D = SNGANDiscriminator(32, ndf=size.ndf).to(device, dtype)
            xr, xf = (torch.rand(2, size.batch, 3, 32, 32, device="cpu") * 2 - 1).to(device, dtype)
        self.batch = (xr, 0.9 * xf)
        self.device = device
        with torch.no_grad():
            for _ in range(10):  # spectral norm settles
                self._D(self.batch[0][:2])
            self._D.linear.bias.sub_(self.discriminator()(torch.cat(self.batch)).mean())

    def forward_flops(self) -> int:
        """F: one forward pass of D over the reals and the fakes."""
        counter = CountFlops()
        with counter, torch.no_grad():
            self.discriminator()(torch.cat(self.batch))
        return counter.total

    def discriminator(self) -> SNGANDiscriminator:
        """A copy of D."""
        return copy.deepcopy(self._D)


def with_head(D: SNGANDiscriminator, head: Literal["plain", "gn", "san"]) -> nn.Module:
    """D as a :class:`CostRow` wants it; the last layer of SAN begins with the same logits."""
    if head == "gn":
        return GradientNormalised(D)
    if head == "san":
        weight, bias = D.linear.weight.detach(), D.linear.bias.detach()
        with torch.random.fork_rng(devices=[]):
            last = SANLinear(weight.shape[1]).to(weight)
        length = torch.linalg.vector_norm(weight)
        with torch.no_grad():
            last.weight.copy_(weight / length)
            last.scale.copy_(length)
            assert last.bias is not None
            last.bias.copy_((weight * bias / length.square())[0])
        D.add_module("linear", last)
    return D


class StepOf:
    """One step of a row, loss and backward pass, with a D and terms of its own. A call takes it.

    Args:
        row: which step.
        way: who computes it.
        workload: D and its batch.
    """

    def __init__(self, row: CostRow, way: Way, workload: Workload) -> None:
        self.row, self.way, self.workload = row, way, workload
        self.D = with_head(workload.discriminator(), row.head)
        self._terms = tuple(map(make_term, row.terms))
        self._generator = torch.Generator(workload.device).manual_seed(1)

    def __call__(self) -> None:
        self._backward()
        self.D.zero_grad(set_to_none=True)

    def gradient(self) -> Tensor:
        """Take a step; the gradients of all parameters in one vector, in float64."""
        self._backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.D.parameters()]
        self.D.zero_grad(set_to_none=True)
        return torch.cat([grad.flatten().double() for grad in grads])

    def flops(self) -> int:
        """Of one step; for an uncompiled way."""
        counter = CountFlops()
        with counter:
            self()
        return counter.total

    def peak_bytes(self) -> int:
        """Memory that one step needs beside parameters and batch."""
        self()
        return peak_bytes(self, self.workload.device)

    def _backward(self) -> None:
        (xr, xf), row = self.workload.batch, self.row
        if self.way == "plain":
            loss = reference.dat_step(
                self.D, xr, xf, row.attack, row.loss, regularizers=self._terms, generator=self._generator
            )
            assert isinstance(loss, Tensor)
        else:
            loss = dat_step(
                self.D,
                xr,
                xf,
                row.attack,
                row.loss,
                regularizers=self._terms,
                generator=self._generator,
                compile=self.way == "compiled",
            )
        loss.backward()


def seconds_of(step: StepOf) -> float:
    """Seconds that one step takes."""
    on_gpu = step.workload.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start
