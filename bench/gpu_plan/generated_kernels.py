"""Compiles the Triton kernels in a step's code, each in every configuration that inductor would try.

Call ``pretended_gpu.pretend()`` before importing this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch._inductor.codecache import _load_triton_kernel_from_source
from torch._inductor.utils import fresh_cache

from bench.gpu_plan.pretended_gpu import ARCHITECTURE
from fastdat.kernels.offline import Resources, resources_of

KERNEL = re.compile(
    r"^(triton_\w+) = async_compile\.triton\('\w+', '''(.*?)''', device_str", re.MULTILINE | re.DOTALL
)
"""A kernel in the code: its name and source."""


@dataclass(frozen=True)
class Compiled:
    """A kernel in one configuration, compiled or not."""

    kernel: str
    configuration: str
    resources: Resources | None
    """None if it does not compile."""
    problem: str = ""

    def __str__(self) -> str:
        return f"{self.kernel} {self.configuration}: {self.resources or self.problem}"


def compile_kernels(code: str) -> Iterator[Compiled]:
    """Compile all kernels of ``GeneratedStep.code`` for the pretended device."""
    # Inductor's static launcher is off, since it would load compiled kernels onto the device.
    with (
        fresh_cache(),
        torch._inductor.config.patch(use_static_triton_launcher=False, force_disable_caches=True),
    ):
        for name, source in KERNEL.findall(code):
            tuner = _load_triton_kernel_from_source(name, source)
            for config in tuner.configs:
                try:
                    resources = resources_of(tuner._precompile_config(config).kernel, ARCHITECTURE)
                except (
                    Exception
                ) as error:  # any error of the compiler; the other kernels are compiled all the same
                    yield Compiled(name, str(config), None, f"{type(error).__name__}: {error}")
                else:
                    yield Compiled(name, str(config), resources)


def report(found: list[Compiled]) -> Iterator[str]:
    """The lines of a report: counts, and the kernels that do not compile or that spill."""
    kernels = {compiled.kernel for compiled in found}
    yield f"  {len(kernels)} Triton kernels in {len(found)} configurations compiled for sm_{ARCHITECTURE}"
    for what, of_them in (("fail to compile", failed(found)), ("spill registers", spilling(found))):
        yield f"  {len(of_them)} {what}"
        yield from (f"    {compiled}" for compiled in of_them)


def failed(found: list[Compiled]) -> list[Compiled]:
    return [compiled for compiled in found if compiled.resources is None]


def spilling(found: list[Compiled]) -> list[Compiled]:
    return [compiled for compiled in found if compiled.resources is not None and compiled.resources.spills]
