"""The Python code that inductor writes for a step: which kernels it launches, in which order, on which tensors.

Call ``pretended_gpu.pretend()`` before importing this. ``fastdat.dat_step`` itself is called, with fake tensors, which
have a shape and no memory; it is stopped once the code is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch._inductor.graph import GraphLowering
from torch._inductor.virtualized import V
from torch._subclasses import FakeTensorMode

import fastdat
from bench.gpu_plan.without_memory import fresh_compilation, inspection_replaced_by, move_to, traits_of
from bench.step.workloads import Workload
from fastdat import DATConfig
from fastdat.nets import SNGANDiscriminator


@dataclass(frozen=True)
class GeneratedStep:
    """The code for one step."""

    code: str
    """Source of a module with a function ``call``."""
    cudagraphs_refused: str | None
    """Why inductor would not replay the step as a CUDA graph; None if it would, or was not asked to."""


class _WrittenError(BaseException):
    """Ends a compilation whose code is written. It is a BaseException, so that no ``except Exception`` catches it."""


def generate(workload: Workload, config: DATConfig, mode: str) -> GeneratedStep:
    """The code of a step with SNGAN's D; what this process has compiled before does not matter.

    Args:
        workload: resolution, samples a side and autocast, on the pretended device.
        config: settings of the step.
        mode: a mode of torch.compile, but not "max-autotune", which times candidates on the device.
    """
    traits = traits_of(workload.resolution, config)
    D = SNGANDiscriminator(workload.resolution)
    D.to(memory_format=workload.memory_format)  # type: ignore[call-overload]  # missing from torch's annotations
    written: list[GeneratedStep] = []

    def take_code(code: str) -> None:
        written.append(GeneratedStep(code, V.graph.disable_cudagraphs_reason))
        raise _WrittenError

    with (
        FakeTensorMode(),
        fresh_compilation(),
        patch.object(GraphLowering, "save_output_code", take_code),
        inspection_replaced_by(lambda *args: traits),
    ):
        move_to(D, workload.device)
        shape = (workload.batch, 3, workload.resolution, workload.resolution)
        xr, xf = (
            torch.empty(shape, device=workload.device).contiguous(memory_format=workload.memory_format)
            for _ in range(2)
        )
        try:
            with workload.autocast():
                fastdat.dat_step(D, xr, xf, config, "hinge", compile=mode)
        except _WrittenError:
            return written[0]
    raise RuntimeError("torch.compile wrote no code for the step: has inductor changed save_output_code?")
