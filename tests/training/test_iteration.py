"""One iteration: everything random is in its inputs, and its body only computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from fastdat.data import ImageSet, TrainSampler
from fastdat.training import Trainer
from fastdat.training.fakes import Labels
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


def test_d_gets_fakes_with_the_labels_that_they_were_made_from(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (30, 3, 32, 32), dtype=torch.uint8)
    data = ImageSet("noise", images, torch.arange(30) % 10, tuple("0123456789"))
    made = trainer(data, tmp_path, "csngan-dat-cifar10")
    given: list[list[Tensor]] = []
    discriminator = made.iteration.steps.discriminator

    def note(xr: Tensor, xf: Tensor, of_real: Labels, of_fake: Labels, *more: Any, **settings: Any) -> Any:
        given.append([xr, *of_real, xf, *of_fake])
        return discriminator(xr, xf, of_real, of_fake, *more, **settings)

    made.iteration.steps.discriminator = note  # type: ignore[method-assign, assignment]
    inputs = made.iteration.fill(3)
    batches, expected = TrainSampler(data, 4, seed=0), []
    for i, (z, labels) in enumerate(zip(inputs.latents.z, *inputs.latents.labels, strict=True)):
        with torch.no_grad():
            fakes = made.netG(z, labels)
        expected.append([batches.batch(6 + i), batches.labels(6 + i), fakes, labels])
    assert not torch.equal(expected[0][1], expected[0][3])
    made.iteration.body(inputs)
    assert_same(given, expected)


def test_the_average_moves_towards_g_in_each_iteration(tmp_path: Path) -> None:
    made = trainer_of(tiny("mlp-dat-gaussians", ema=0.75, lr=0.1), None, tmp_path)
    assert made.ema is not None
    expected = [weight.detach().clone() for weight in made.netG.parameters()]
    for step in (0, 1):
        made.iteration.run(step)
        expected = [
            0.75 * a + 0.25 * w.detach() for a, w in zip(expected, made.netG.parameters(), strict=True)
        ]
    torch.testing.assert_close(list(made.ema.net.parameters()), expected)


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
