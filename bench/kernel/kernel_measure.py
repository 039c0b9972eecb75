"""Measures every provider of a case: first whether its results are right, then its speed, beside a large copy."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.failures import one_line
from bench.kernel.case import Case, Provider
from bench.timing.device_time import CaptureError, captured, count_launches, failed_capture
from bench.timing.interleaved import Step, Timing, as_called, interleave

COPY_BYTES = {"cuda": 256 << 20, "cpu": 64 << 20}
MAX_INPUT_SETS = 128
SECONDS_A_CASE = 8.0
"""Time for all timings of a case; a slow provider gets fewer rounds and repeats."""
LONGEST_IN_GRAPH = 5e-3
"""Longest call, in seconds, for which a CUDA graph is made: for a longer one the host's time does not matter."""
LARGEST_GRAPH = 1 << 30
"""Largest set of inputs, in bytes, for which a CUDA graph is made: a larger one would fill the device's memory, and the
host's time does not matter for it."""
NO_KERNELS = "no Triton kernels run here; their interpreter is not timed"


@dataclass
class Result:
    """What is known of one provider."""

    problem: str | None = None
    """Why the provider is not timed; None if it is."""
    absent: bool = False
    """The provider does not exist on this device."""
    error: float | None = None
    limit: float | None = None
    compile_seconds: float | None = None
    """Duration of the first call."""
    call_seconds: float = 0.0
    """Duration of the second call, roughly that of every later one."""
    launches: int | None = None
    """Kernels on the device in one call; None until `count_all_launches` has counted them."""
    timing: Timing | None = None
    """Calls as a program makes them, including the time for which the device waits for the host."""
    graph_timing: Timing | None = None
    """The same calls replayed as a CUDA graph; None on a CPU, and where they cannot be captured."""

    @property
    def device_timing(self) -> Timing | None:
        """The best known time of the device alone."""
        return self.graph_timing or self.timing


@dataclass
class KernelMeasurement:
    """All providers of one case, measured together."""

    case: Case
    copies: int
    """Sets of inputs that take turns."""
    copy_rate: float
    """Bytes a second that a large copy reads and writes."""
    results: dict[str, Result]

    def rate(self, provider: str) -> float | None:
        """Bytes that must move, over the median time, in bytes a second."""
        timing = self.results[provider].device_timing
        return None if timing is None else self.case.bytes / timing.median

    def summary(self, provider: str) -> dict[str, Any]:
        """Everything known of a provider, for the JSON."""
        result, rate = self.results[provider], self.rate(provider)
        facts: dict[str, Any] = {
            "case": self.case.name, "kernel": self.case.kernel, **self.case.facts, "provider": provider,
            "bytes": self.case.bytes, "input_sets": self.copies, "copy_gb_per_s": self.copy_rate / 1e9,
            "error": result.error, "error_limit": result.limit, "first_call_s": result.compile_seconds,
        }  # fmt: skip
        if failed_capture() is not None:
            facts["not_captured"] = failed_capture()
        if result.timing is not None:
            facts |= result.timing.summary()
        if result.graph_timing is not None:
            facts |= {f"graph_{key}": value for key, value in result.graph_timing.summary().items()}
        if rate is not None:
            facts |= {"gb_per_s": rate / 1e9, "percent_of_copy": 100 * rate / self.copy_rate}
        return facts


def measure(case: Case, rounds: int, repeats: int) -> KernelMeasurement:
    """Check every provider, then time in turns those that are right, and a large copy.

    Args:
        case: what to measure.
        rounds, repeats: as in `interleave`.
    """
    count = input_sets(case)
    inputs = [case.inputs(seed) for seed in range(count)]
    providers = {provider.name: provider for provider in case.providers()}
    results = _check(case, providers, inputs[0])
    steps: dict[str, Step] = {
        name: Rotating(providers[name], inputs) for name in results if results[name].problem is None
    }
    copy = Copy(case.device)  # before any graph is captured, since it draws random numbers
    graphs = _capture(case, steps, results, count)
    seconds_a_round = sum(results[name].call_seconds * (1 + count * (name in graphs)) for name in steps)
    rounds, repeats = within(SECONDS_A_CASE, seconds_a_round, rounds, repeats)
    of_graphs = {_graph_of(name): graph for name, graph in graphs.items()}
    timings = interleave(
        {**steps, **of_graphs, _COPY: copy}, as_called(case.device), rounds=rounds, repeats=repeats
    )
    for name in steps:
        results[name].timing = timings[name]
        if name in graphs:
            results[name].graph_timing = Timing([s / count for s in timings[_graph_of(name)].seconds])
    return KernelMeasurement(case, count, copy.bytes / timings[_COPY].median, results)


_COPY = "a large copy"


def _graph_of(name: str) -> str:
    return f"{name}, graph"


def _check(case: Case, providers: Mapping[str, Provider], inputs: Any) -> dict[str, Result]:
    """Provider -> whether it exists here and is right: its error may be twice that of the first one."""
    exact = case.exact(inputs)
    eager = next(iter(providers.values()))
    limit = 2 * relative_error(eager.call(eager.prepare(inputs)), exact) + case.slack
    return {
        name: examine(providers[name], inputs, exact, limit)
        if name in providers
        else Result(NO_KERNELS, absent=True)
        for name in case.provider_names()
    }


def _capture(
    case: Case, steps: Mapping[str, Step], results: Mapping[str, Result], calls: int
) -> dict[str, Step]:
    """Provider -> ``calls`` calls as one CUDA graph, where a graph makes sense and can be captured."""
    graphs: dict[str, Step] = {}
    if case.device.type == "cuda" and case.input_bytes <= LARGEST_GRAPH:
        for name, step in steps.items():
            if results[name].call_seconds <= LONGEST_IN_GRAPH:
                with suppress(CaptureError):
                    graphs[name] = captured(step, calls)
    return graphs


def within(seconds: float, seconds_a_round: float, rounds: int, repeats: int) -> tuple[int, int]:
    """Rounds and repeats that fit into about ``seconds``, where one round without repeats takes ``seconds_a_round``.

    There are five rounds at least, and two warm-up rounds come on top.
    """
    if not seconds_a_round:
        return rounds, repeats
    repeats = max(1, min(repeats, int(seconds / (seconds_a_round * (rounds + 2)))))
    return min(rounds, max(5, int(seconds / (seconds_a_round * repeats)) - 2)), repeats


def count_all_launches(measurement: KernelMeasurement) -> dict[str, int | None]:
    """Count the launches of each provider that was timed, and write them into its result.

    Call this after all timings of the process: the profiler stays attached to the device.
    """
    case = measurement.case
    inputs, counts = case.inputs(0), dict[str, int | None]()
    for provider in case.providers():
        result = measurement.results[provider.name]
        if result.timing is not None:
            counts[provider.name] = result.launches = count_launches(
                partial(provider.call, provider.prepare(inputs))
            )
    return counts


def input_sets(case: Case) -> int:
    """Number of sets of inputs; on a GPU enough to exceed twice its L2 cache, but at most 128."""
    if case.device.type != "cuda":
        return 4
    l2: int = torch.cuda.get_device_properties(case.device).L2_cache_size
    return max(2, min(2 * l2 // case.input_bytes + 1, MAX_INPUT_SETS))


def examine(provider: Provider, inputs: Any, exact: Sequence[Tensor], limit: float) -> Result:
    """Whether a provider is right, and how long its first two calls take."""
    try:
        prepared = provider.prepare(inputs)
        start = time.perf_counter()
        found = provider.call(prepared)
        error = relative_error(found, exact)  # waits for the device
        seconds, start = time.perf_counter() - start, time.perf_counter()
        provider.call(prepared)
        if exact[0].is_cuda:
            torch.cuda.synchronize()
        again = time.perf_counter() - start
    except Exception as failure:  # the other providers are measured all the same, and this one fails its test
        return Result(one_line(failure), limit=limit)
    problem = None if error <= limit else f"wrong by {error:.2g}, where {limit:.2g} is allowed"
    return Result(problem, error=error, limit=limit, compile_seconds=seconds, call_seconds=again)


def relative_error(found: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """The largest ``max |found - exact| / max |exact|`` of all results; infinite where anything is not finite."""
    worst = 0.0
    for ours, truth in zip(found, exact, strict=True):
        if ours.shape != truth.shape:
            return float("inf")
        rows = max(1, (1 << 24) // max(1, truth[0].numel()))
        pieces = zip(ours.detach().split(rows), truth.detach().split(rows), strict=True)
        difference = torch.stack([(a.double() - b).abs().max() for a, b in pieces]).max()
        error = float(difference / truth.detach().abs().max())
        worst = max(worst, error) if error == error else float("inf")
    return worst


class Rotating:
    """Calls a provider on one set of inputs after another."""

    def __init__(self, provider: Provider, inputs: Sequence[Any]) -> None:
        self._call = provider.call
        self._prepared = itertools.cycle([provider.prepare(one) for one in inputs])

    def __call__(self) -> object:
        return self._call(next(self._prepared))


class Copy:
    """A copy of random data. Its rate is the ceiling for every kernel that reads and writes memory."""

    def __init__(self, device: torch.device) -> None:
        size = COPY_BYTES[device.type]
        generator = torch.Generator(device).manual_seed(0)
        self._source = torch.randn(size // 4, device=device, generator=generator)
        self._target = torch.empty_like(self._source)
        self.bytes = 2 * size
        """Read and written."""

    def __call__(self) -> object:
        return self._target.copy_(self._source)
