"""The Python code that inductor writes for a step: which kernels it launches, in which order, on which tensors.

Call ``pretended_gpu.pretend()`` before importing this. ``fastdat.dat_step`` itself is called, with fake tensors, which
have a shape and no memory; it is stopped once the code is written.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._inductor.graph import GraphLowering
from torch._inductor.utils import fresh_cache
from torch._inductor.virtualized import V
from torch._subclasses import FakeTensorMode

import fastdat
from bench.step.workloads import Workload
from fastdat import DATConfig
from fastdat.engine import compile
from fastdat.engine.inspection import Traits, inspect
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
    traits = _traits(workload.resolution, config)
    D = SNGANDiscriminator(workload.resolution)
    D.to(memory_format=workload.memory_format)  # type: ignore[call-overload]  # missing from torch's annotations
    written: list[GeneratedStep] = []

    def take_code(code: str) -> None:
        written.append(GeneratedStep(code, V.graph.disable_cudagraphs_reason))
        raise _WrittenError

    with (
        FakeTensorMode(),
        _fresh_compilation(),
        patch.object(GraphLowering, "save_output_code", take_code),
        _inspection_replaced_by(lambda *args: traits),
    ):
        _move_to(D, workload.device)
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
    """The traits that ``dat_step`` finds when it inspects D. They come from a narrow D on the CPU, since the inspection
    looks at numbers, which fake tensors do not have."""
    found: list[Traits] = []

    def inspect_and_keep(*args: object) -> Traits:
        found.append(inspect(*args))  # type: ignore[arg-type]
        return found[-1]

    x = torch.zeros(2, 3, resolution, resolution)
    with _inspection_replaced_by(inspect_and_keep):
        fastdat.dat_step(SNGANDiscriminator(resolution, ndf=16), x, x, config, "hinge", compile=False)
    return found[0]


def _inspection_replaced_by(function: Callable[..., Traits]) -> AbstractContextManager[object]:
    """Within it, ``dat_step`` calls ``function`` in place of ``inspect``. This is the only patch of fastdat here."""
    return patch.object(compile, "inspect", function)


def _move_to(D: nn.Module, device: torch.device) -> None:
    """Replaces ``D.to(device)``, which cannot exchange the tensors of a parametrization for fake ones."""

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
def _fresh_compilation() -> Iterator[None]:
    """Within it, a compilation uses no result of an earlier one and leaves none."""
    torch.compiler.reset()
    with (
        fresh_cache(),
        # No caches: a killed compilation can leave half a file there. One process: workers would not see the pretended
        # device.
        torch._inductor.config.patch(force_disable_caches=True, compile_threads=1),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings(
            "ignore", "dynamo_pgo force disabled", UserWarning
        )  # caches are off on purpose
        logger = logging.getLogger("torch._inductor.select_algorithm")
        logger.addFilter(_is_wanted)
        try:
            yield
        finally:
            logger.removeFilter(_is_wanted)


def _is_wanted(record: logging.LogRecord) -> bool:
    """False for the warning that matrix products of the second-order step could not be timed: none is timed here."""
    return "Constructing input/output tensor meta failed" not in record.getMessage()
