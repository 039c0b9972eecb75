"""One iteration: everything random is in its inputs, and its body only computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from torch.utils._pytree import tree_leaves

from fastdat.data import ImageSet
from fastdat.training import Trainer
from tests.training.runs import assert_same, change_reals, tiny, trainer_of

NAMES = ("sngan-dat-cifar10", "csngan-dat-cifar10")


def trainer(data: ImageSet, outdir: Path, name: str) -> Trainer:
    return trainer_of(tiny(name, ema=0.9), data, outdir)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_a_function_of_the_step(name: str, few_images: ImageSet, tmp_path: Path) -> None:
    iteration = trainer(few_images, tmp_path, name).iteration

    def inputs(step: int) -> list[Any]:
        found = iteration.fill(step)
        return [found.latents, [*found.discriminator], found.generator]

    latents, d_steps, of_g = inputs(3)
    conditional = name.startswith("csngan")
    assert latents.z.shape == (2, 4, 8)
    assert [x.shape for x in latents.labels] == [(2, 4)] * conditional
    assert len(d_steps) == 2
    for d in d_steps:
        assert d.reals.shape == (4, 3, 32, 32)
        assert [x.shape for x in d.labels_real] == [(4,)] * conditional
    assert (of_g.z.shape, [x.shape for x in of_g.labels]) == ((4, 8), [(4,)] * conditional)
    assert_same(tree_leaves(inputs(3)), tree_leaves(inputs(3)))
    every = [x.numpy().tobytes() for x in (*latents.z, *inputs(4)[0].z, of_g.z, inputs(4)[2].z)]
    assert len(set(every)) == 6, "two D steps and one G step, of two iterations"


def test_reals_are_fetched_one_batch_at_a_time(few_images: ImageSet, tmp_path: Path) -> None:
    made = trainer(few_images, tmp_path, NAMES[0])
    asked: list[int] = []

    def note(step: int, reals: Tensor) -> Tensor:
        asked.append(step)
        return reals

    change_reals(made, note)
    d_steps = iter(made.iteration.fill(5).discriminator)
    assert asked == []
    next(d_steps)
    assert asked == [10]
