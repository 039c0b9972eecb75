"""What a benchmark of a kernel consists of: a `Case` with its inputs, and the `Provider`s that compute it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastdat.kernels import formulas, ops
from fastdat.kernels.dispatch import AVAILABLE, INTERPRETED

EAGER, COMPILED, FASTDAT, PARAMETRIZATION = "torch eager", "torch.compile", "fastdat", "torch parametrization"
"""Names of providers."""

Shape = tuple[int, ...]


def identity(inputs: Any) -> Any:
    return inputs


@dataclass(frozen=True)
class Provider:
    """One way to compute a case."""

    name: str
    call: Callable[[Any], list[Tensor]]
    """(result of ``prepare``) -> results, in the order of ``Case.exact``."""
    prepare: Callable[[Any], Any] = identity
    """(inputs of the case) -> argument of ``call``. It is not timed."""


class Case(ABC):
    """One kernel with inputs of one shape, dtype and layout."""

    kernel: str
    """Name of the operation in `fastdat.kernels.ops` and `fastdat.kernels.formulas`."""
    device: torch.device
    slack: float = 1e-6
    """Relative error that is always allowed."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Kernel, shape, dtype and layout."""

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Shape, dtype and layout, for the JSON."""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Bytes that must move to and from memory; bench/README.md says how each tensor counts."""

    @property
    @abstractmethod
    def input_bytes(self) -> int:
        """Size of one set of inputs."""

    @property
    def memory_bytes(self) -> int:
        """Upper bound on the device memory that a measurement takes, with the float64 results and all copies."""
        return 24 * self.input_bytes + (256 << 20)

    @abstractmethod
    def inputs(self, seed: int) -> Any:
        """One set of random inputs."""

    @abstractmethod
    def exact(self, inputs: Any) -> list[Tensor]:
        """The results in float64."""

    @abstractmethod
    def providers(self) -> tuple[Provider, ...]:
        """The providers that exist on this device, the plain formula first."""

    def provider_names(self) -> tuple[str, ...]:
        """The providers to report: those of ``providers()``, and those that exist on a GPU only."""
        return EAGER, COMPILED, FASTDAT

    def _normal(self, seed: int) -> Callable[..., Tensor]:
        """Function (*shape) -> normal random numbers on the device, new ones at each call."""
        generator = torch.Generator(self.device).manual_seed(seed)
        return partial(torch.randn, generator=generator, device=self.device)

    def _providers_of(self, name: str, call: Callable[..., list[Tensor]]) -> tuple[Provider, ...]:
        """The formula called ``name``, the same compiled, and the kernel where it runs; ``call`` is (function, inputs)
        -> results."""
        formula = getattr(formulas, name)
        functions = {EAGER: formula, COMPILED: torch.compile(formula, dynamic=False, fullgraph=True)}
        if has_kernels(self.device):
            functions[FASTDAT] = getattr(ops, name)
        return tuple(Provider(provider, partial(call, function)) for provider, function in functions.items())


def has_kernels(device: torch.device) -> bool:
    """Whether compiled kernels run on ``device``. Triton's interpreter does not count: it is never timed."""
    return AVAILABLE and device.type == "cuda" and not INTERPRETED


def short_name(dtype: torch.dtype) -> str:
    """``fp32`` or ``bf16``."""
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]
