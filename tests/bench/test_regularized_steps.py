"""Benchmarks of the regularizers: the steps that are timed compute what they say, and what they cost."""

from __future__ import annotations

import dataclasses
import itertools
from functools import partial

import pytest
import torch

from bench.step import correctness, eager_baselines, flops, step_measure, step_report
from bench.step.regularized_steps import REGULARIZED
from bench.step.step_measure import Measurement, Result, measure
from bench.step.workloads import Batch, Step, Variant, Workload
from bench.timing.interleaved import Timing
from fastdat.experiments.step_counters import peak_bytes_on_cpu
from fastdat.nets import SNGANDiscriminator
from fastdat.regularizers import cost

WORKLOAD = Workload(4, torch.device("cpu"))
NDF = 8


def small_step(variant: Variant, dtype: torch.dtype = torch.float32) -> Step:
    """The step uncompiled, on a narrow D."""
    torch.manual_seed(0)
    D = SNGANDiscriminator(32, ndf=NDF).to(dtype)
    batches: list[Batch] = [
        (torch.rand(4, 3, 32, 32, dtype=dtype) * 2 - 1, torch.rand(4, 3, 32, 32, dtype=dtype) * 1.6 - 0.8)
        for _ in range(2)
    ]
    variant = dataclasses.replace(variant, loss=variant.eager, fold=False)
    return Step(variant, WORKLOAD, D, itertools.cycle(batches))


@pytest.mark.parametrize("variant", REGULARIZED, ids=lambda variant: variant.name)
def test_every_variant_computes_the_gradients_of_the_reference(variant: Variant) -> None:
    """In float64, where rounding cannot hide a difference; terms draw the same numbers on both sides."""
    step = small_step(variant, torch.float64)
    error, _ = correctness.check(step, next(step.batches))
    assert error <= 1e-10


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("eager WGAN-GP", partial(eager_baselines.wgan_gp_loss, weight=10.01)),
        ("eager RpGAN + R1 + R2", partial(eager_baselines.r3gan_loss, gamma=0.06)),
    ],
)
def test_wrong_gradients_do_not_pass(name: str, wrong: partial[torch.Tensor]) -> None:
    """The check notices a weight that is a thousandth too large, and a gamma a fifth too large."""
    variant = next(variant for variant in REGULARIZED if variant.name == name)
    step = small_step(dataclasses.replace(variant, eager=wrong))
    error, limit = correctness.check(step, next(step.batches))
    assert error > limit


@pytest.mark.parametrize("variant", REGULARIZED, ids=lambda variant: variant.name)
def test_steps_of_fastdat_run_on_their_floor(variant: Variant) -> None:
    """As many passes as `fastdat.regularizers.cost` says, without the gradient for the images where none needs it.

    The baselines differentiate through zeros, or compute that gradient as well.
    """
    step = small_step(variant)
    batch = next(step.batches)
    found = flops.of_step(step, batch)
    floor = flops.floor(step.variant, step.D, batch, WORKLOAD)
    assert variant.passes == cost(variant.config, variant.regularizers)
    if variant.compiled:
        assert found <= floor * 1.0001
        assert found >= 0.97 * floor
    else:
        assert found > 1.02 * floor


def test_memory_of_a_cpu() -> None:
    before = torch.empty(3_000)

    def call() -> torch.Tensor:
        before.set_()  # gives back what the call did not take
        a, b = torch.empty(1_000), torch.empty(500)
        del a
        return torch.cat([b, torch.empty(200)])  # 500, 200 and 700 at once, fewer than 1,000 and 500

    assert peak_bytes_on_cpu(call) == 4 * 1_500
    assert peak_bytes_on_cpu(lambda: torch.cat([torch.empty(500), torch.empty(450)])) == 4 * 1_900


def test_report_names_the_goals_that_are_reached() -> None:
    milliseconds = {
        "eager WGAN-GP": 1000, "fastdat GP": 650, "eager RpGAN + R1 + R2": 1000, "fastdat RpGAN + R1 + R2": 610,
        "fastdat DAT second order": 1000, "fastdat DAT second order + R1 + R2": 1020,
    }  # fmt: skip
    results = {}
    for variant in REGULARIZED:
        if variant.name in milliseconds:
            result = Result(variant, error=1e-6, limit=1e-5, flops=5, floor_flops=5, forward_flops=1)
            result.timing = Timing([milliseconds[variant.name] / 1e3] * 3)
            results[variant.name] = result
    text = "\n".join(step_report.tables(Measurement(WORKLOAD, "noise", 1e12, results)))
    lines = [line.split("  goal") for line in text.splitlines() if "goal" in line]
    found = {name.split(" / ")[0].strip(): (float(name.split()[-1]), goal) for name, goal in lines}
    assert found == {
        "fastdat GP": (0.65, " <= 0.65: reached"),
        "fastdat RpGAN + R1 + R2": (0.61, " <= 0.60: missed"),
        "fastdat DAT second order + R1 + R2": (1.02, " <= 1.03: reached"),
    }


def test_chosen_variants_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the memory of a step on a CPU."""

    class Product:
        flops = 1

        def __init__(self, *_: object) -> None: ...

        def __call__(self) -> None: ...

    monkeypatch.setattr(step_measure, "MatrixProduct", Product)
    monkeypatch.setattr(Workload, "discriminator", lambda self: SNGANDiscriminator(32, ndf=NDF))
    variant = dataclasses.replace(REGULARIZED[0])
    measured = measure(WORKLOAD, rounds=2, repeats=1, cifar10=None, variants=[variant])
    assert list(measured.results) == [variant.name]
    summary = measured.summary(variant.name)
    assert summary["n"] == 2
    activations = 2 * 4 * NDF * 32 * 32 * 4  # one layer's, of both sides
    assert activations < summary["peak_memory_bytes"] < 100 * activations
