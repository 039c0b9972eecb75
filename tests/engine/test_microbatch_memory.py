"""A D step in parts takes the memory of one part: what grows with the batch are its images, not D's activations."""

from __future__ import annotations

import pytest
import torch

import fastdat
from fastdat import DATConfig
from fastdat.experiments.step_counters import peak_bytes_on_cpu
from fastdat.nets import SNGANDiscriminator

SIDE = 32
IMAGE = 4 * 3 * SIDE**2
"""Bytes of an image in fp32."""
PART = 4


def growth(config: DATConfig, microbatch: int | None) -> float:
    """The peak of a step in bytes for each further sample a side, in images."""
    torch.manual_seed(0)
    D = SNGANDiscriminator(SIDE, 32)
    peaks = []
    for batch in (2 * PART, 4 * PART):
        xr, xf = (torch.rand(batch, 3, SIDE, SIDE) * 2 - 1 for _ in range(2))

        def step(xr: torch.Tensor = xr, xf: torch.Tensor = xf) -> None:
            fastdat.dat_step(D, xr, xf, config=config, compile=False, microbatch=microbatch).backward()
            D.zero_grad()

        step()
        peaks.append(peak_bytes_on_cpu(step))
    return (peaks[1] - peaks[0]) / (2 * PART) / IMAGE


@pytest.mark.parametrize(("second_order", "whole", "in_parts"), [(False, 100, 6.5), (True, 250, 2.5)])
def test_growth_with_the_batch(second_order: bool, whole: float, in_parts: float) -> None:
    """In first order the gradients and the perturbed images of both sides are kept, and a few more; in second order
    each part computes them again. The gradients of the parameters are those of one part: 5 images a part here."""
    config = DATConfig(second_order=second_order)
    assert growth(config, PART) < in_parts
    assert growth(config, None) > whole
