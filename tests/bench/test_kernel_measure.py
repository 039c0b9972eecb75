"""Benchmarks of the kernels: shapes, bytes, rates and goals, and that only right results are timed."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import bench_kernels
from bench.kernel import kernel_measure, kernel_report
from bench.kernel.attack_coefficients import AttackCoefficients
from bench.kernel.case import COMPILED, EAGER, FASTDAT, PARAMETRIZATION, Case, Provider, has_kernels
from bench.kernel.convolutions import ConvolutionCase, convolution_cases
from bench.kernel.kernel_measure import COPY_BYTES, KernelMeasurement, Result, measure, relative_error
from bench.kernel.perturb_clip import PerturbClip
from bench.kernel.selection import kernel_cases
from bench.kernel.spectral_norm import SHAPES, SpectralNorm
from bench.timing.interleaved import Timing

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SMALL_SHAPES = ((8, 3, 3, 3), (8, 8, 3, 3), (8, 3, 1, 1), (1, 8))
CONVOLUTIONS = [case for case in convolution_cases(CPU, samples=4, width=8) if case.shape[-1] == 16]
SMALL: list[Case] = [
    *(
        PerturbClip(2, 8, dtype, channels_last, what, CPU)
        for dtype in (torch.float32, torch.bfloat16)
        for channels_last in (False, True)
        for what in ("forward", "stats", "backward")
    ),
    AttackCoefficients(5, CPU),
    SpectralNorm("small", SMALL_SHAPES, False, CPU),
    SpectralNorm("small", SMALL_SHAPES, True, CPU),
    *CONVOLUTIONS,
]
EACH = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)


@pytest.fixture(autouse=True)
def small_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COPY_BYTES, "cpu", 1 << 16)


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn torch.compile off: it takes seconds a case, and its results are not tested here."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


# --- shapes and bytes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("resolution", "parameters"), [(32, 1_053_825), (64, 10_141_441), (128, 29_017_857)])
def test_shapes_are_those_of_the_networks(resolution: int, parameters: int) -> None:
    """Together with one bias a row, they are all parameters of the network."""
    shapes = SHAPES[resolution]()
    assert sum(torch.Size(shape).numel() + shape[0] for shape in shapes) == parameters


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        # 4 samples of 3 * 8 * 8 = 192 elements: 768
        (PerturbClip(2, 8, torch.float32, False, "forward", CPU), 12 * 768 + 4 * 4),
        (PerturbClip(2, 8, torch.bfloat16, True, "forward", CPU), 6 * 768 + 4 * 4),
        (PerturbClip(2, 8, torch.float32, False, "stats", CPU), 12 * 768 + 4 * 4 + 4 * 8),
        (PerturbClip(2, 8, torch.float32, False, "backward", CPU), (12 + 20) * 768 + 4 * (4 + 4 + 4)),
        (AttackCoefficients(64, CPU), 4 * 4 * 128 + 8),
        (SpectralNorm("one", ((2, 3, 3, 3),), False, CPU), 3 * 4 * 54),
        (SpectralNorm("one", ((2, 3, 3, 3),), True, CPU), 6 * 4 * 54),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_bytes_that_must_move(case: Case, expected: int) -> None:
    assert case.bytes == expected


def tensors(inputs: object) -> list[Tensor]:
    return [inputs] if isinstance(inputs, Tensor) else [t for part in inputs for t in tensors(part)]


@EACH
def test_inputs_are_random_and_of_the_stated_size(case: Case) -> None:
    """The inputs have the stated size, none is constant, and another seed gives other ones."""
    found, others = tensors(case.inputs(0)), tensors(case.inputs(1))
    vectors = isinstance(case, SpectralNorm)  # u and v do not count
    counted = [t for t in found if not vectors or t.ndim > 1]
    assert sum(t.numel() * t.element_size() for t in counted) == case.input_bytes
    for one, other in zip(found, others, strict=True):
        assert one.numel() == 1 or (one != one.flatten()[0]).any()
        assert one.numel() == 1 or not torch.equal(one, other)
    if isinstance(case, PerturbClip):
        layout = torch.channels_last if case.channels_last else torch.contiguous_format
        assert all(t.is_contiguous(memory_format=layout) for t in found if t.ndim == 4)


def test_inputs_meet_the_limits_and_keep_away_from_them() -> None:
    """Many elements lie beyond a limit, and none so near that rounding could move it across."""
    x, grad, c = PerturbClip(8, 32, torch.float32, False, "forward", CPU).inputs(0)
    delta = c.double().reshape(-1, 1, 1, 1) * grad.double()
    moved = x.double() + delta.clamp(-1, 1)
    assert 0.02 < (delta.abs() > 1).double().mean() < 0.5
    assert 0.1 < (moved.abs() > 1).double().mean() < 0.6
    for quantity in (delta, moved):
        assert (quantity.abs() - 1).abs().min() >= 1e-5


# --- right results are timed --------------------------------------------------------------------------------------


@EACH
def test_every_provider_is_right(case: Case) -> None:
    measured = measure(case, rounds=2, repeats=1)
    assert set(measured.results) == set(case.provider_names())
    for name, result in measured.results.items():
        if name == FASTDAT:  # there are no compiled kernels without a GPU
            assert result.absent
            continue
        assert result.problem is None, f"{name}: {result.problem}"
        assert result.timing is not None
        assert len(result.timing.seconds) == 2
        assert measured.summary(name)["gb_per_s"] > 0


def test_kernels_are_timed_on_a_gpu_only() -> None:
    assert not has_kernels(CPU)
    assert all(provider.name != FASTDAT for case in SMALL for provider in case.providers())


@dataclasses.dataclass(frozen=True)
class WithWrongProviders(AttackCoefficients):
    """Providers whose results are wrong in the sixth digit, not finite, missing, or of another shape."""

    def provider_names(self) -> tuple[str, ...]:
        return tuple(provider.name for provider in self.providers())

    def providers(self) -> tuple[Provider, ...]:
        eager = super().providers()[0]

        def changed(change):
            return lambda inputs: [change(t) for t in eager.call(inputs)]

        def fail(inputs):
            raise RuntimeError("no such kernel\nand a traceback")

        return (
            eager,
            Provider("a digit", changed(lambda t: t * (1 + 1e-5))),
            Provider("nan", changed(lambda t: t * float("nan"))),
            Provider("failure", fail),
            Provider("shape", changed(lambda t: t[..., :1])),
        )


def test_wrong_results_are_not_timed() -> None:
    measured = measure(WithWrongProviders(5, CPU), rounds=2, repeats=1)
    wrong = {name: result for name, result in measured.results.items() if name != EAGER}
    assert measured.results[EAGER].timing is not None
    assert all(result.timing is None for result in wrong.values())
    assert wrong["a digit"].problem.startswith("wrong by 1e-05, where 1")
    assert wrong["nan"].problem.startswith("wrong by inf")
    assert wrong["failure"].problem == "RuntimeError: no such kernel"
    assert wrong["shape"].problem.startswith("wrong by inf")
    assert all("gb_per_s" not in measured.summary(name) for name in wrong)
    text = "\n".join(kernel_report.tables([measured]))
    assert "a digit                      not timed: wrong by 1e-05" in text


def test_whoever_is_wrong_fails_and_whoever_is_absent_is_skipped() -> None:
    """Not fastdat's kernels alone: a way that fastdat takes has another name beside a convolution."""
    measured = measure(WithWrongProviders(5, CPU), rounds=2, repeats=1)
    benchmark: Any = SimpleNamespace(extra_info={}, pedantic=lambda *_, **__: None)
    with pytest.raises(AssertionError, match="wrong by 1e-05"):
        bench_kernels.bench_kernel(benchmark, measured, "a digit")
    missing = dataclasses.replace(measured.results["a digit"], absent=True, problem="not here")
    measured.results["a digit"] = missing
    with pytest.raises(pytest.skip.Exception, match="not here"):
        bench_kernels.bench_kernel(benchmark, measured, "a digit")


def test_launches_are_counted_after_the_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only providers that were timed are counted, and only on request: the profiler slows what follows."""

    def count(step) -> int:
        return len(step())

    monkeypatch.setattr(kernel_measure, "count_launches", count)
    measured = measure(WithWrongProviders(5, CPU), rounds=2, repeats=1)
    assert measured.results[EAGER].launches is None
    assert kernel_measure.count_all_launches(measured) == {EAGER: 3}
    assert measured.results[EAGER].launches == 3
    assert measured.results["nan"].launches is None


@pytest.mark.parametrize(
    ("a_round", "expected"),
    [(1e-4, (20, 10)), (0.02, (20, 10)), (0.1, (20, 3)), (1.0, (6, 1)), (9.0, (5, 1)), (0.0, (20, 10))],
)
def test_a_slow_provider_gets_fewer_rounds(a_round: float, expected: tuple[int, int]) -> None:
    """The rounds fit into 8 seconds with two warm-up rounds; there are at least five."""
    assert kernel_measure.within(8.0, a_round, rounds=20, repeats=10) == expected


def test_flops_of_a_convolution_are_those_before_pooling() -> None:
    """38.65 GFLOP: 2 * 128 samples * 128 * 128 features * 9 taps * 1024 positions, pooled afterwards or not."""
    cases = [case for case in convolution_cases(CPU) if case.shape[-1] == 32]
    assert len(cases) == 4
    assert {case.facts["flops_of_3x3"] for case in cases} == {38_654_705_664}


def test_relative_error_is_the_largest_of_all_results() -> None:
    exact = [torch.tensor([1.0, -4.0]).double(), torch.tensor([[100.0], [50.0]]).double()]
    assert relative_error([torch.tensor([1.0, -4.0]), torch.tensor([[100.0], [51.0]])], exact) == 0.01
    assert relative_error([torch.tensor([1.0, -3.0]), torch.tensor([[100.0], [51.0]])], exact) == 0.25


# --- rates and goals ----------------------------------------------------------------------------------------------


def measurement(case: Case, copy_rate: float, **microseconds: float) -> KernelMeasurement:
    """A measurement with these medians; a name that ends in _graph is the median of the graph."""
    names = {"eager": EAGER, "compiled": COMPILED, "fastdat": FASTDAT, "torch_own": PARAMETRIZATION}
    results = {}
    for short, name in names.items():
        if short not in microseconds:
            continue
        graph = microseconds.get(f"{short}_graph")
        results[name] = Result(
            error=0.0, limit=1e-6, compile_seconds=0.1, timing=Timing([microseconds[short] * 1e-6] * 3),
            graph_timing=None if graph is None else Timing([graph * 1e-6] * 3),
        )  # fmt: skip
    return KernelMeasurement(case, 4, copy_rate, results)


def test_rate_is_bytes_over_device_time() -> None:
    case = AttackCoefficients(62_500_000 // 8, CPU)  # 32 bytes a sample and 8: 250 MB
    assert case.bytes == 250_000_008
    measured = measurement(case, 1e12, eager=1000.0, compiled=1000.0, compiled_graph=500.0)
    called, replayed = measured.summary(EAGER), measured.summary(COMPILED)
    assert called["gb_per_s"] == pytest.approx(250.000008)
    assert called["percent_of_copy"] == pytest.approx(25.0000008)
    assert replayed["gb_per_s"] == pytest.approx(500.000016)
    assert (replayed["median_ms"], replayed["graph_median_ms"]) == (pytest.approx(1.0), pytest.approx(0.5))


def test_copy_counts_reads_and_writes() -> None:
    copy = kernel_measure.Copy(CPU)
    assert copy.bytes == 2 << 16
    assert torch.equal(copy(), copy._source)
    assert copy._source.std() > 0.9


def goals_of(measured: KernelMeasurement) -> str:
    return "\n".join(kernel_report.goals(measured))


def test_goal_of_perturb_clip() -> None:
    case = PerturbClip(4096, 32, torch.float32, False, "forward", CUDA)
    assert case.bytes >= 256 << 20
    seconds = case.bytes / 1e12 * 1e6
    assert "95%, reached" in goals_of(measurement(case, 1e12, fastdat=seconds / 0.95))
    assert "85%, missed" in goals_of(measurement(case, 1e12, fastdat=seconds / 0.85))
    small = dataclasses.replace(case, batch=64)
    assert goals_of(measurement(small, 1e12, fastdat=1.0)) == ""
    on_cpu = dataclasses.replace(small, device=CPU)
    assert goals_of(measurement(on_cpu, 1e12, eager=1.0)) == "  no goal on a CPU"


def test_goals_of_spectral_norm() -> None:
    case = SpectralNorm("sngan64", SHAPES[64](), True, CUDA)
    floor = case.bytes / 1e12 * 1e6
    times = {"fastdat_graph": 1.5 * floor, "fastdat": 4 * floor, "torch_own_graph": 18 * floor}
    lines = goals_of(measurement(case, 1e12, torch_own=20 * floor, **times)).split("\n")
    assert "floor <= 2: 1.50, reached" in lines[0]
    assert "graphs, >= 10: 12.0, reached" in lines[1]
    assert "calls, >= 10: 5.0, missed" in lines[2]
    wrong = measurement(case, 1e12, torch_own=20 * floor, **times)
    wrong.results[FASTDAT] = Result("wrong by 1, where 1e-6 is allowed")
    assert goals_of(wrong) == ""


# --- the list of cases ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_cases(device: torch.device) -> None:
    first, others = kernel_cases(device)
    found = [*first, *others]
    names = [case.name for case in found]
    assert len(set(names)) == len(names) == {"cpu": 36 + 3 + 2, "cuda": 108 + 3 + 6}[device.type]
    large = [case for case in found[:4] if isinstance(case, PerturbClip) and case.dtype == torch.float32]
    assert device == CPU or all(case.bytes >= kernel_report.LARGE for case in large)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=lambda case: case.name)
def test_both_ways_to_convolve_compute_the_same(case: ConvolutionCase) -> None:
    """In float64, with a width that differs from the channels, against autograd."""
    case = dataclasses.replace(case, features=5)
    x, w, g = (t.double().requires_grad_() for t in case.inputs(0))
    y = torch.nn.functional.conv2d(x, w, padding=1)
    pooled = case.output[-1] < case.shape[-1]
    y = torch.nn.functional.avg_pool2d(y, 2) if pooled else y
    of_x, of_w = torch.autograd.grad(y, (x, w), g)
    expected = {"forward": y, "input gradient": of_x}.get(getattr(case, "what", ""), of_w)
    for provider in case.providers():
        (found,) = provider.call(tuple(t.detach() for t in (x, w, g)))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
