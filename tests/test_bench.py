"""The measuring tools of bench/: what they refuse to time, and how timings reach pytest-benchmark."""

from __future__ import annotations

import dataclasses
import itertools
import time
from pathlib import Path

import pytest
import torch

from bench import correctness, eager_baselines, flops, gpu_check, report, workloads
from bench.interleaved import ReplayClock, Timing, interleave
from bench.measure import Measurement, Result
from bench.workloads import VARIANTS, Step, Variant, Workload
from fastdat import DATConfig
from fastdat.nets import SNGANDiscriminator

WORKLOAD = Workload(4, torch.device("cpu"))


def small_step(variant: Variant) -> Step:
    D = SNGANDiscriminator(32, ndf=8)
    batches = [(torch.rand(4, 3, 32, 32) * 2 - 1, torch.rand(4, 3, 32, 32) * 2 - 1) for _ in range(2)]
    return Step(variant, WORKLOAD, D, itertools.cycle(batches))


def uncompiled(variant: Variant) -> Variant:
    return dataclasses.replace(variant, loss=variant.eager)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_variant_computes_what_it_says(variant: Variant) -> None:
    step = small_step(uncompiled(variant))
    error, limit = correctness.check(step, next(step.batches))
    assert error <= limit


def test_wrong_gradients_do_not_pass() -> None:
    """The released step with a hundredth more eps is caught."""

    def wrong(D: torch.nn.Module, xr: torch.Tensor, xf: torch.Tensor) -> torch.Tensor:
        return eager_baselines.released_dat_loss(D, xr, xf, eps=1.01)

    step = small_step(dataclasses.replace(VARIANTS[0], loss=wrong))
    error, limit = correctness.check(step, next(step.batches))
    assert error > limit


def test_check_leaves_the_discriminator_alone() -> None:
    step = small_step(uncompiled(VARIANTS[0]))
    before = {name: value.clone() for name, value in step.D.state_dict().items()}
    correctness.check(step, next(step.batches))
    torch.testing.assert_close(step.D.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in step.D.parameters())


@pytest.mark.parametrize(
    ("config", "passes"),
    [(workloads.PLAIN, 3), (workloads.DAT, 5), (DATConfig(steps=2), 7), (workloads.DAT_SECOND_ORDER, 7)],
    ids=str,
)
def test_steps_run_on_their_floor(config: DATConfig, passes: int) -> None:
    """Clean pass and input gradient for each attack step, then forward and backward: no FLOP more."""
    step = small_step(workloads._fastdat("step", config, passes, image_gradient=config.second_order))
    batch = next(step.batches)
    floor = flops.floor(step.variant, step.D, batch, WORKLOAD)
    # In second order the last layer's constant seeds spare a product that the floor, in whole passes, counts.
    assert flops.of_step(step, batch) == pytest.approx(floor, rel=1e-5 if config.second_order else 0)


def test_interleave_times_every_step_in_every_round() -> None:
    calls: list[str] = []
    steps = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    timings = interleave(steps, cuda=False, rounds=5, repeats=2, warmup=1)
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 5, "b": 5}
    rounds = [calls[i : i + 4] for i in range(0, len(calls), 4)]
    assert len(rounds) == 6
    assert all(sorted(turn) == ["a", "a", "b", "b"] for turn in rounds)


def test_replay_clock_plays_what_was_recorded() -> None:
    clock, timing = ReplayClock(), Timing([0.5, 0.25, 1.0])
    played = []
    for _ in range(clock.load(timing)):
        start = clock()
        clock.play()
        played.append(clock() - start)
    assert played == timing.seconds


def test_report_gives_no_speed_to_wrong_gradients() -> None:
    results = {
        variant.name: Result(variant, error=1e-6, limit=1e-5, flops=5, floor_flops=5, forward_flops=1)
        for variant in VARIANTS
    }
    for result in results.values():
        result.timing = Timing([1.0, 2.0, 3.0])
    wrong = results["fastdat DAT"]
    wrong.error, wrong.timing = 1.0, None
    text = "\n".join(report.tables(Measurement(WORKLOAD, "noise", 1e12, results)))
    assert "fastdat DAT                not timed" in text
    assert "fastdat DAT / " not in text
    assert "fastdat DAT second order / fastdat SNGAN" in text


def test_gpu_check_stops_pytest_in_time(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    slow = tmp_path / "test_slow.py"
    slow.write_text("import time\ndef test_slow():\n    time.sleep(60)\n")
    start = time.monotonic()
    assert gpu_check.run_pytest([str(slow)], end=start + 3) == "out of time"
    assert time.monotonic() - start < 30
    assert gpu_check.run_pytest([str(slow)], end=start) == "out of time"


def test_gpu_check_counts_tests(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tests = tmp_path / "test_two.py"
    tests.write_text("def test_good(): pass\ndef test_bad(): assert False\n")
    xml = tmp_path / "report.xml"
    assert gpu_check.run_pytest([str(tests), f"--junitxml={xml}"], end=time.monotonic() + 60) == "failed"
    assert gpu_check.counts(xml) == {"tests": 2, "failures": 1, "errors": 0, "skipped": 0}
    assert gpu_check.counts(tmp_path / "none.xml") == {}
