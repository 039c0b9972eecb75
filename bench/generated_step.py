"""The Python that inductor writes for a step: which kernels it launches, in which order, on which tensors.

``pretended_gpu.pretend()`` comes first. The step is ``fastdat.dat_step`` itself, called with tensors that have a shape
and no memory; it ends once the code is written.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._inductor.graph import GraphLowering
from torch._inductor.utils import fresh_cache
from torch._inductor.virtualized import V
from torch._subclasses import FakeTensorMode

import fastdat
from bench.workloads import Workload
from fastdat import DATConfig
from fastdat.engine import step
from fastdat.engine.inspection import Traits, inspect
from fastdat.nets import SNGANDiscriminator


@dataclass(frozen=True)
class GeneratedStep:
    """What was written for one step."""

    code: str
    """A module with a function ``call``."""
    cudagraphs_refused: str | None
    """Why inductor would not replay it as a CUDA graph; None where it would, or was not asked to."""


class _WrittenError(BaseException):
    """Ends a compilation whose code is written; no handler of Exception may stop it."""


def generate(workload: Workload, config: DATConfig, mode: str) -> GeneratedStep:
    """The step of SNGAN's D, whatever this process has compiled before.

    Args:
        workload: resolution, samples a side, autocast; its device is the pretended one.
        config: the step.
        mode: of torch.compile; "max-autotune" would time candidates on the device.
    """
    traits = _traits(workload.resolution, config)
    D = SNGANDiscriminator(workload.resolution)
    D.to(memory_format=workload.memory_format)  # type: ignore[call-overload]  # missing from torch's annotations
    written: list[GeneratedStep] = []

    def take(code: str) -> None:
        written.append(GeneratedStep(code, V.graph.disable_cudagraphs_reason))
        raise _WrittenError

    with (
        FakeTensorMode(),
        _compiled_anew(),
        patch.object(GraphLowering, "save_output_code", take),
        patch.object(step, "inspect", lambda *args: traits),
    ):
        _put_on(D, workload.device)
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


def _traits(resolution: int, config: DATConfig) -> Traits:
    """What ``dat_step`` finds out about such a D, by running a narrow one: a fake tensor has no numbers to look at."""
    found: list[Traits] = []

    def noting(*args: object) -> Traits:
        found.append(inspect(*args))  # type: ignore[arg-type]
        return found[-1]

    x = torch.zeros(2, 3, resolution, resolution)
    with patch.object(step, "inspect", noting):
        fastdat.dat_step(SNGANDiscriminator(resolution, ndf=16), x, x, config, "hinge", compile=False)
    return found[0]


def _put_on(D: nn.Module, device: torch.device) -> None:
    """In place of ``D.to(device)``, which swaps tensors, and cannot swap those of a parametrization for fake ones."""

    def fake(t: Tensor) -> Tensor:
        return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=device)

    for module in D.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(fake(parameter), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake(buffer)


@contextmanager
def _compiled_anew() -> Iterator[None]:
    """Compilation that neither reads nor leaves what another one, perhaps of this process, has left."""
    torch.compiler.reset()
    with (
        fresh_cache(),
        # A compilation that is killed can leave half a file in a cache. One process: workers know of no pretence.
        torch._inductor.config.patch(force_disable_caches=True, compile_threads=1),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "dynamo_pgo force disabled", UserWarning)  # as asked for
        logger = logging.getLogger("torch._inductor.select_algorithm")
        logger.addFilter(_is_wanted)
        try:
            yield
        finally:
            logger.removeFilter(_is_wanted)


def _is_wanted(record: logging.LogRecord) -> bool:
    """False for a warning that the second-order step's matrix products could not be timed; none is."""
    return "Constructing input/output tensor meta failed" not in record.getMessage()
