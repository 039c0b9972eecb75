"""Benchmark cases of ``attack_coefficients``: one number a sample, from the logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.kernel.case import Case, Provider
from fastdat.kernels import formulas
from fastdat.kernels.logit_functions import IDENTITY


@dataclass(frozen=True)
class AttackCoefficients(Case):
    """``attack_coefficients`` as ``DATConfig()`` needs them: of the logits, with one sign a side."""

    n: int
    """Samples a side."""
    device: torch.device
    kernel = "attack_coefficients"

    @property
    def name(self) -> str:
        return f"{self.kernel}-2x{self.n}-fp32"

    @property
    def facts(self) -> dict[str, Any]:
        return {"shape": [2, self.n], "dtype": "fp32"}

    @property
    def bytes(self) -> int:
        """Clean and present logits are read, coefficients and signs are written: 2n float32 each. Two targets."""
        return 4 * (4 * 2 * self.n + 2)

    @property
    def input_bytes(self) -> int:
        return 4 * 2 * 2 * self.n

    def inputs(self, seed: int) -> tuple[Tensor, Tensor]:
        """Clean logits and present logits, (2, n) each."""
        clean, now = self._normal(seed)(2, 2, self.n)
        return clean, now + 0.5  # far from the clean means, so that no sign depends on rounding

    def exact(self, inputs: tuple[Tensor, Tensor]) -> list[Tensor]:
        clean, now = inputs
        return self._call(formulas.attack_coefficients, (clean.double(), now.double()))

    def providers(self) -> tuple[Provider, ...]:
        return self._providers_of(self.kernel, self._call)

    def _call(self, function: Callable[..., Any], inputs: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Coefficients, signs and targets."""
        return list(function(*inputs, None, (IDENTITY, IDENTITY), "batch", 1.0))
