"""What it takes to compile for tensors without memory: D's traits, nets of fake tensors, no caches.

Call ``pretended_gpu.pretend()`` before importing this.
"""

from __future__ import annotations

import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._inductor.utils import fresh_cache

import fastdat
from fastdat import DATConfig
from fastdat.engine import compile
from fastdat.engine.inspection import Traits, inspect
from fastdat.nets import SNGANDiscriminator


def traits_of(resolution: int, config: DATConfig) -> Traits:
    """The traits that ``dat_step`` finds when it inspects D. They come from a narrow D on the CPU, since the inspection
    looks at numbers, which fake tensors do not have."""
    found: list[Traits] = []

    def inspect_and_keep(*args: object) -> Traits:
        found.append(inspect(*args))  # type: ignore[arg-type]
        return found[-1]

    xr, xf = torch.zeros(2, 2, 3, resolution, resolution).unbind()
    # Without the engines that there are, since D is inspected only where a new one is made.
    with inspection_replaced_by(inspect_and_keep), patch.object(compile, "_ENGINES", OrderedDict()):
        fastdat.dat_step(SNGANDiscriminator(resolution, ndf=16), xr, xf, config, "hinge", compile=False)
    return found[0]


def inspection_replaced_by(function: Callable[..., Traits]) -> AbstractContextManager[object]:
    """Within it, ``dat_step`` calls ``function`` in place of ``inspect``."""
    return patch.object(compile, "inspect", function)


def move_to(net: nn.Module, device: torch.device) -> None:
    """Replaces ``net.to(device)``, which cannot exchange the tensors of a parametrization for fake ones."""

    def fake(t: Tensor) -> Tensor:
        return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=device)

    for module in net.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(fake(parameter), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake(buffer)


@contextmanager
def fresh_compilation() -> Iterator[None]:
    """Within it, a compilation uses no result of an earlier one and leaves none."""
    torch.compiler.reset()
    with (
        fresh_cache(),
        # No caches: a killed compilation can leave half a file there. One process: workers would not see the pretended
        # device.
        torch._inductor.config.patch(force_disable_caches=True, compile_threads=1),
        warnings.catch_warnings(),
    ):
        for expected in (
            "dynamo_pgo force disabled",  # caches are off on purpose
            "Accessing the data pointer of FakeTensor",  # to look at its alignment, for example
        ):
            warnings.filterwarnings("ignore", expected, UserWarning)
        logger = logging.getLogger("torch._inductor.select_algorithm")
        logger.addFilter(_is_wanted)
        try:
            yield
        finally:
            logger.removeFilter(_is_wanted)


def _is_wanted(record: logging.LogRecord) -> bool:
    """False for the warning that matrix products of the second-order step could not be timed: none is timed here."""
    return "Constructing input/output tensor meta failed" not in record.getMessage()
