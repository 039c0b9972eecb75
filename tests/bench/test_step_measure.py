"""Benchmarks of the step: what is timed, what is not, and how timings reach pytest-benchmark."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch

from bench import environment
from bench.step import correctness, eager_baselines, flops, step_measure, step_report, workloads
from bench.step.step_measure import Measurement, Result, measure
from bench.step.workloads import UNFOLDED, VARIANTS, Step, Variant, Workload, variants_of
from bench.timing.interleaved import ReplayClock, Timing, as_called, interleave
from fastdat import DATConfig
from fastdat.nets import SNGANDiscriminator

WORKLOAD = Workload(4, torch.device("cpu"))


def small_step(variant: Variant) -> Step:
    D = SNGANDiscriminator(32, ndf=8)
    batches = [(torch.rand(4, 3, 32, 32) * 2 - 1, torch.rand(4, 3, 32, 32) * 2 - 1) for _ in range(2)]
    return Step(variant, WORKLOAD, D, itertools.cycle(batches))


def uncompiled(variant: Variant) -> Variant:
    return dataclasses.replace(variant, loss=variant.eager, fold=False)


@pytest.fixture
def small_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the matrix product by one that takes no time."""

    class Product:
        flops = 1

        def __init__(self, *_: object) -> None: ...

        def __call__(self) -> None: ...

    monkeypatch.setattr(step_measure, "MatrixProduct", Product)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_variant_computes_the_gradients_of_its_config(variant: Variant) -> None:
    step = small_step(uncompiled(variant))
    error, limit = correctness.check(step, next(step.batches))
    assert error <= limit


def test_wrong_gradients_do_not_pass() -> None:
    """The check notices an eps that is one hundredth too large."""

    def wrong(D: torch.nn.Module, xr: torch.Tensor, xf: torch.Tensor) -> torch.Tensor:
        return eager_baselines.released_dat_loss(D, xr, xf, eps=1.01)

    step = small_step(dataclasses.replace(VARIANTS[0], loss=wrong))
    error, limit = correctness.check(step, next(step.batches))
    assert error > limit


def test_check_does_not_change_the_discriminator() -> None:
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
    """The clean pass, an input gradient for each attack step, then forward and backward, and no FLOP more."""
    step = small_step(workloads._fastdat("step", config, passes, fold=False))
    batch = next(step.batches)
    floor = flops.floor(step.variant, step.D, batch, WORKLOAD)
    # The floor counts whole passes; in second order one product with a constant of the last layer is not needed.
    assert flops.of_step(step, batch) == pytest.approx(floor, rel=1e-5 if config.second_order else 0)


def test_interleave_times_every_step_in_every_round() -> None:
    calls: list[str] = []
    steps = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    timings = interleave(steps, as_called(torch.device("cpu")), rounds=5, repeats=2, warmup=1)
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 5, "b": 5}
    rounds = [calls[i : i + 4] for i in range(0, len(calls), 4)]
    assert len(rounds) == 6
    assert all(sorted(turn) == ["a", "a", "b", "b"] for turn in rounds)


def test_replay_clock_plays_the_recorded_timings() -> None:
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
    text = "\n".join(step_report.tables(Measurement(WORKLOAD, "noise", 1e12, results)))
    assert "fastdat DAT                                not timed" in text
    assert "fastdat DAT / " not in text
    assert "fastdat DAT second order / fastdat SNGAN" in text


def gpu_measurement(**milliseconds: tuple[float, float]) -> Measurement:
    """A measurement on a GPU; the times are (called, device) in ms."""
    names = {"ours": "fastdat DAT", "plain": "fastdat SNGAN", "released": "eager released DAT"}
    results = {}
    for short, (called, device) in milliseconds.items():
        variant = next(variant for variant in VARIANTS if variant.name == names[short])
        result = Result(variant, error=1e-6, limit=1e-5, flops=5 * 10**9, floor_flops=5, forward_flops=1)
        result.timing, result.device_timing = Timing([called / 1e3] * 3), Timing([device / 1e3] * 3)
        result.device_clock, result.host_timing, result.launches = "graph", Timing([0.001] * 3), 134
        results[variant.name] = result
    workload = Workload(64, torch.device("cuda"), torch.bfloat16)
    return Measurement(workload, "noise", 100e12, results, left_out=("fastdat DAT second order",))


def test_goals_on_a_gpu_compare_device_times() -> None:
    measured = gpu_measurement(ours=(4.0, 1.0), plain=(3.0, 0.5), released=(8.0, 6.0))
    text = "\n".join(step_report.tables(measured))
    assert (
        "fastdat DAT / eager released DAT               0.17   goal <= 0.20: reached   as called 0.50" in text
    )
    assert (
        "fastdat DAT / fastdat SNGAN                    2.00   goal <= 1.70: missed   as called 1.33" in text
    )
    assert "fastdat DAT second order                   not measured: no time was left" in text
    facts = measured.summary("fastdat DAT")
    assert (facts["median_ms"], facts["device_median_ms"], facts["host_median_ms"]) == (4.0, 1.0, 1.0)
    assert (facts["launches"], facts["device_clock"]) == (134, "graph")
    assert facts["percent_of_matmul_peak"] == pytest.approx(5.0)  # 5 GFLOP in 1 ms, of 100 TFLOP/s


def test_variants_of_a_gpu() -> None:
    """Variants that replay CUDA graphs are added for batches whose time may depend on the host."""
    device = torch.device("cuda")
    names = {batch: [v.name for v in variants_of(Workload(batch, device))] for batch in (64, 512, 2048)}
    assert names[64] == names[512] == [
        *(variant.name for variant in VARIANTS),
        "fastdat SNGAN, reduce-overhead", "fastdat DAT, reduce-overhead", "fastdat DAT second order, reduce-overhead",
        *(variant.name for variant in UNFOLDED),
    ]  # fmt: skip
    not_replayed = [variant.name for variant in (*VARIANTS, *UNFOLDED)]
    assert names[2048] == [v.name for v in variants_of(WORKLOAD)] == not_replayed
    replayed = variants_of(Workload(64, device))[6]
    assert replayed.loss.keywords == {
        "config": DATConfig(),
        "loss": "hinge",
        "compile": "reduce-overhead",
        "fold": True,
    }  # type: ignore[attr-defined]


def test_cudnn_benchmark_is_a_run_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN keeps its choice for a shape, so one process cannot measure both ways."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    names = [variant.name for variant in variants_of(Workload(64, torch.device("cuda")))]
    assert names == ["eager SNGAN", "fastdat SNGAN", "fastdat DAT"]


def test_no_variant_begins_after_the_time_is_up(small_product: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first variant is always measured; those left out are listed."""
    steps = [small_step(uncompiled(variant)) for variant in VARIANTS[:3]]
    monkeypatch.setattr(workloads, "steps", lambda *_: steps)
    measured = measure(WORKLOAD, rounds=2, repeats=1, cifar10=None, seconds=0.0)
    assert list(measured.results) == [VARIANTS[0].name]
    assert measured.left_out == (VARIANTS[1].name, VARIANTS[2].name)
    assert measured.results[VARIANTS[0].name].timing is not None


def test_a_result_is_never_overwritten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This includes the result of gpu-check, which has the same name on a GPU."""
    monkeypatch.setattr(environment, "RESULTS", tmp_path)
    first = environment.results_path()
    assert environment.unused_path() == first
    for suffix in ("-2", "-3"):
        environment.unused_path().touch()
        assert environment.unused_path().stem == first.stem + suffix


def test_a_variant_that_fails_does_not_stop_the_others(
    small_product: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> torch.Tensor:
        raise RuntimeError("no such kernel\nand a traceback")

    steps = [
        small_step(dataclasses.replace(uncompiled(VARIANTS[0]), loss=fail)),
        small_step(uncompiled(VARIANTS[1])),
    ]
    monkeypatch.setattr(workloads, "steps", lambda *_: steps)
    measured = measure(WORKLOAD, rounds=2, repeats=1, cifar10=None)
    assert measured.failed == {VARIANTS[0].name: "RuntimeError: no such kernel"}
    assert list(measured.results) == [VARIANTS[1].name]
    text = "\n".join(step_report.tables(measured))
    assert "eager released DAT                         failed: RuntimeError: no such kernel" in text


def test_timings_are_kept_if_a_later_measurement_fails(
    small_product: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AttributeError("no such clock")

    steps = [small_step(uncompiled(VARIANTS[1]))]
    monkeypatch.setattr(workloads, "steps", lambda *_: steps)
    monkeypatch.setattr(step_measure, "_time_separately", fail)
    monkeypatch.setattr(step_measure, "_peak_bytes", lambda step: 0)
    monkeypatch.setattr(Workload, "cuda", True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    noted: list[Measurement] = []
    measured = measure(WORKLOAD, rounds=2, repeats=1, cifar10=None, note=noted.append)
    assert noted == [measured]  # noted before the failure
    result = measured.results[VARIANTS[1].name]
    assert result.timing is not None
    assert result.work_timing is result.timing
    assert measured.summary(VARIANTS[1].name)["not_apart"] == "AttributeError: no such clock"
    assert "host and device were not timed separately: AttributeError" in "\n".join(
        step_report.tables(measured)
    )


def test_after_the_time_is_up_only_calls_are_timed(
    small_product: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workloads, "steps", lambda *_: [small_step(uncompiled(VARIANTS[1]))])
    monkeypatch.setattr(step_measure, "_peak_bytes", lambda step: 0)
    monkeypatch.setattr(Workload, "cuda", True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert measure(WORKLOAD, 2, 1, None, seconds=0.0).not_separate == "no time was left"
