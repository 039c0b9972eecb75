"""FLOPs of a compiled step, against the sum over SNGAN-32's layers, folded, by hand."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

import fastdat
from bench.step import flops
from bench.step.workloads import PLAIN, VARIANTS, Step, Variant, Workload
from fastdat.nets import SNGANDiscriminator

M, WIDTH = 4, 16
SAMPLES = 2 * M


def layers() -> tuple[int, int]:
    """Multiplications of one sample's forward pass, and of the gradient for its image."""
    of_image = 9 * 3 * WIDTH * 32**2 + 3 * WIDTH * 16**2  # conv1, and the shortcut after its pool
    square = WIDTH * WIDTH
    first = 9 * square * 16**2  # conv2, with its pool
    second = 9 * square * 16**2 + 9 * square * 8**2 + square * 8**2
    others = 4 * 9 * square * 8**2
    return of_image + first + second + others + WIDTH, of_image


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS[2:], ids=lambda variant: variant.name)
def test_a_folded_step_costs_as_many_passes_of_a_cheaper_network(variant: Variant) -> None:
    """3, 5 and 7 passes, where convolutions before a pool cost a quarter; at width 128, 1.41, 2.35 and 3.32 F."""
    workload = Workload(M, torch.device("cpu"))
    batch = torch.rand(M, 3, 32, 32) * 2 - 1, torch.rand(M, 3, 32, 32) * 1.8 - 0.8
    step = Step(variant, workload, SNGANDiscriminator(32, ndf=WIDTH), itertools.cycle([batch]))
    forward, of_image = layers()
    expected = variant.passes * forward - (0 if variant.image_gradient else of_image)
    assert flops.of_step(step, batch) == pytest.approx(2 * SAMPLES * expected, rel=2e-4)


def test_a_step_that_is_compiled_already_is_counted() -> None:
    D, batch = nn.Linear(3, 1), (torch.rand(4, 3), torch.rand(4, 3) - 0.5)

    def step() -> None:
        fastdat.dat_step(D, *batch, PLAIN, fold=False).backward()

    step()
    with pytest.raises(RuntimeError, match="nothing was counted"):
        flops.of_compiled(step)
    D = copy.deepcopy(D)
    assert flops.of_compiled(step) == 2 * 8 * 3 * 2  # forward, and the gradient of the weight


def test_a_failure_before_the_graph_is_counted_is_told() -> None:
    def fails() -> None:
        raise RuntimeError("no such step")

    with pytest.raises(RuntimeError, match="no such step"):
        flops.of_compiled(fails)
