"""Checks that a variant computes the right gradients. Only a variant that passes is timed."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor, nn

from bench.step.workloads import Batch, LossOf, Step, Workload, gradient_step
from fastdat import reference

SLACK = 1e-5
"""Relative error that is always allowed."""


def check(step: Step, batch: Batch) -> tuple[float, float]:
    """The relative error of the variant's gradients, and its limit.

    The error is against `fastdat.reference.dat_step` in float64 (in float32 without TF32 for a bf16 workload). The
    limit is twice the error of that reference in the precision that is measured.
    """
    variant, workload = step.variant, step.workload
    config, terms = variant.config, variant.regularizers

    def reference_loss(D: nn.Module, xr: Tensor, xf: Tensor) -> Tensor:
        loss = reference.dat_step(D, xr, xf, config=config, loss=variant.loss_name, regularizers=terms)
        assert isinstance(loss, Tensor)
        return loss

    truth = true_gradients(reference_loss, step.D, batch, workload)
    rounding = relative_error(gradients(reference_loss, step.D, batch, workload), truth)
    error = relative_error(gradients(step.variant.loss, step.D, batch, workload), truth)
    return error, max(2 * rounding, SLACK)


def gradients(loss_of: LossOf, D: nn.Module, batch: Batch, workload: Workload) -> list[Tensor]:
    """The gradients of one step of D, in float64. D's state is restored afterwards, and torch's random state too: the
    next call draws the same numbers.
    """
    state = copy.deepcopy(D.state_dict())
    with torch.random.fork_rng(devices=[batch[0].device] if batch[0].is_cuda else []):
        gradient_step(loss_of, D, batch, workload)
    found = [torch.zeros_like(p) if p.grad is None else p.grad.detach().double() for p in D.parameters()]
    D.load_state_dict(state)
    D.zero_grad(set_to_none=True)
    return found


def true_gradients(loss_of: LossOf, D: nn.Module, batch: Batch, workload: Workload) -> list[Tensor]:
    """The gradients of one step in float64, or in float32 for a workload in bf16."""
    exact, dtype = (
        dataclasses.replace(workload, amp=None),
        torch.float64 if workload.amp is None else torch.float32,
    )
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False, fp32_precision="ieee"):
        return gradients(loss_of, copy.deepcopy(D).to(dtype), (batch[0].to(dtype), batch[1].to(dtype)), exact)


def relative_error(found: list[Tensor], truth: list[Tensor]) -> float:
    """|found - truth| / |truth| over all parameters together; infinite where anything is not finite."""
    difference = torch.stack([(a - b).square().sum() for a, b in zip(found, truth, strict=True)]).sum()
    norm = torch.stack([b.square().sum() for b in truth]).sum()
    error = float((difference / norm).sqrt())
    return error if error == error else float("inf")
