"""Which cases of the kernels are measured on a device, and in which order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from bench.kernel.attack_coefficients import AttackCoefficients
from bench.kernel.case import Case
from bench.kernel.convolutions import convolution_cases
from bench.kernel.perturb_clip import PerturbClip, What
from bench.kernel.spectral_norm import SHAPES, SpectralNorm


def all_cases(device: torch.device) -> list[Case]:
    """All cases, the most important first; the questions about convolutions on a GPU only."""
    first, others = kernel_cases(device)
    convolutions = convolution_cases(device) if device.type == "cuda" else ()
    return [*first, *convolutions, *others]


def kernel_cases(device: torch.device) -> tuple[list[Case], list[Case]]:
    """The most important cases of fastdat's kernels, and the others. A CPU gets small ones."""
    cuda = device.type == "cuda"
    sizes = (
        list(itertools.product((4096, 512, 64), (32, 64, 128))) if cuda else [(64, 32), (512, 32), (64, 64)]
    )
    nets = {r: shapes() for r, shapes in SHAPES.items() if cuda or r == 32}

    def norms(backward: bool) -> list[Case]:
        return [SpectralNorm(f"sngan{r}", shapes, backward, device) for r, shapes in nets.items()]

    def attacks(what: What) -> Iterator[Case]:
        options = itertools.product(sizes, (torch.float32, torch.bfloat16), (False, True))
        for (batch, resolution), dtype, channels_last in options:
            yield PerturbClip(batch, resolution, dtype, channels_last, what, device)

    plain = list(attacks("forward"))
    coefficients = [AttackCoefficients(n, device) for n in (64, 512, 4096)]
    first = [*plain[:4], *norms(True)[:1], *norms(False)[:1], *coefficients]
    others = [*norms(True)[1:], *norms(False)[1:], *plain[4:], *attacks("backward"), *attacks("stats")]
    return first, others
