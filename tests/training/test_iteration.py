"""One iteration: everything random is in its inputs, and its body only computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

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
        return [*(vars(d) for d in found.discriminator), vars(found.generator)]

    labels = (4,) if name.startswith("csngan") else None
    assert len(inputs(3)) == 2 + 1, "n_dis D steps and one G step"
    for d in inputs(3)[:2]:
        assert (d["reals"].shape, d["z"].shape) == ((4, 3, 32, 32), (4, 8))
        assert [x.shape for x in (*d["labels_real"], *d["labels_fake"])] == ([labels] * 2 if labels else [])
    assert_inputs_equal(inputs(3), inputs(3))
    assert not torch.equal(inputs(3)[0]["z"], inputs(4)[0]["z"])
    assert not torch.equal(inputs(3)[2]["z"], inputs(4)[2]["z"])


def assert_inputs_equal(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> None:
    assert_same(
        *([{**x, **{k: list(v) for k, v in x.items() if type(v) is tuple}} for x in y] for y in (a, b))
    )


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


class NoRandomNumbers(TorchDispatchMode):
    """Refuses operations that draw random numbers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert torch.Tag.nondeterministic_seeded not in func.tags, func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", NAMES)
def test_the_body_draws_nothing(name: str, few_images: ImageSet, tmp_path: Path) -> None:
    """Inputs that are fetched beforehand and a body under this guard give the same nets as ``run``."""
    plain, guarded = (trainer(few_images, tmp_path / kind, name) for kind in ("plain", "guarded"))
    plain.iteration.run(0)
    inputs = guarded.iteration.fill(0)
    inputs = type(inputs)(list(inputs.discriminator), inputs.generator)
    before = torch.get_rng_state()
    with NoRandomNumbers():
        guarded.iteration.body(inputs)
    assert torch.equal(before, torch.get_rng_state())
    for net in ("netG", "netD"):
        assert_same(*(dict(getattr(made, net).state_dict()) for made in (plain, guarded)))
    assert plain.ema is not None
    assert guarded.ema is not None
    assert_same(dict(plain.ema.net.state_dict()), dict(guarded.ema.net.state_dict()))
    assert plain.state.means() == guarded.state.means()
    assert {"loss_d", "loss_g", "delta_rms_real"} <= plain.state.means().keys()
