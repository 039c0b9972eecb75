"""Measures every provider of a case: first what it computes, then how fast, in turn with a large copy."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.device_time import CaptureError, captured, count_launches, failed_capture
from bench.failures import told
from bench.interleaved import Step, Timing, as_called, interleave
from bench.kernel_workloads import Case, Provider

COPY_BYTES = {"cuda": 256 << 20, "cpu": 64 << 20}
MOST_SETS = 128
SECONDS_A_CASE = 8.0
"""For the timings of a case; a slow provider gets fewer rounds and repeats."""
LONGEST_IN_GRAPH = 5e-3
"""Seconds of a call above which no graph is made: the host is no matter there."""
LARGEST_GRAPH = 1 << 30
"""Bytes of a set of inputs above which no graph is made: it would hold memory, and the host is no matter there."""
NO_KERNELS = "no Triton kernels run here; their interpreter is not timed"


@dataclass
class Result:
    """What is known of one provider."""

    problem: str | None = None
    """Why it is not timed."""
    absent: bool = False
    """It does not exist on this device."""
    error: float | None = None
    limit: float | None = None
    compile_seconds: float | None = None
    """Time of the first call."""
    call_seconds: float = 0.0
    """Time of the second, roughly what a call takes."""
    launches: int | None = None
    """Kernels on the device in one call, where `count_all_launches` has counted them."""
    timing: Timing | None = None
    """Of calls as a program makes them: where the device waits for the host, that counts."""
    graph_timing: Timing | None = None
    """Of the same calls replayed as a CUDA graph; None on a CPU, or where they cannot be captured."""

    @property
    def device_timing(self) -> Timing | None:
        """By the device's time alone, as far as known."""
        return self.graph_timing or self.timing


@dataclass
class KernelMeasurement:
    """All providers of one case, measured together."""

    case: Case
    copies: int
    """Sets of inputs that take turns."""
    copy_rate: float
    """Bytes read and written a second by a large copy."""
    results: dict[str, Result]

    def rate(self, provider: str) -> float | None:
        """Bytes that must move, over the median time."""
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
        rounds, repeats: as of `interleave`.
    """
    count = input_sets(case)
    inputs = [case.inputs(seed) for seed in range(count)]
    exact = case.exact(inputs[0])
    providers = {provider.name: provider for provider in case.providers()}
    eager = next(iter(providers.values()))
    limit = 2 * relative_error(eager.call(eager.prepare(inputs[0])), exact) + case.slack
    results, steps = {}, dict[str, Step]()
    for name in case.provider_names():
        if name not in providers:
            results[name] = Result(NO_KERNELS, absent=True)
            continue
        results[name] = examine(providers[name], inputs[0], exact, limit)
        if results[name].problem is None:
            steps[name] = Rotating(providers[name], inputs)
    del exact
    cuda = case.device.type == "cuda"
    copy = Copy(case.device)  # before any graph is captured, for its random numbers
    graphs: dict[str, Step] = {}
    if cuda and case.input_bytes <= LARGEST_GRAPH:
        for name, step in steps.items():
            if results[name].call_seconds <= LONGEST_IN_GRAPH:
                with suppress(CaptureError):
                    graphs[_of_graph(name)] = captured(step, count)
    all_steps: dict[str, Step] = {**steps, **graphs, _COPY: copy}
    a_round = sum(results[name].call_seconds * (1 + count * (_of_graph(name) in graphs)) for name in steps)
    rounds, repeats = within(SECONDS_A_CASE, a_round, rounds, repeats)
    timings = interleave(all_steps, as_called(case.device), rounds=rounds, repeats=repeats)
    for name in steps:
        results[name].timing = timings[name]
        if _of_graph(name) in timings:
            results[name].graph_timing = Timing([s / count for s in timings[_of_graph(name)].seconds])
    return KernelMeasurement(case, count, copy.bytes / timings[_COPY].median, results)


def within(seconds: float, a_round: float, rounds: int, repeats: int) -> tuple[int, int]:
    """Rounds and repeats that take about `seconds` at most where a round without repeats takes `a_round`; five rounds
    at least, and two more go before."""
    if not a_round:
        return rounds, repeats
    repeats = max(1, min(repeats, int(seconds / (a_round * (rounds + 2)))))
    return min(rounds, max(5, int(seconds / (a_round * repeats)) - 2)), repeats


def count_all_launches(measurement: KernelMeasurement) -> dict[str, int | None]:
    """Count the launches of each provider that was timed, and note them in its result.

    For when all timings of the process are taken: the profiler stays attached to the device.
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


_COPY = "a large copy"


def _of_graph(name: str) -> str:
    return f"{name}, graph"


def input_sets(case: Case) -> int:
    """As many as are together larger than twice a GPU's L2 cache, within reason; two at least."""
    if case.device.type != "cuda":
        return 4
    l2: int = torch.cuda.get_device_properties(case.device).L2_cache_size
    return max(2, min(2 * l2 // case.input_bytes + 1, MOST_SETS))


def examine(provider: Provider, inputs: Any, exact: Sequence[Tensor], limit: float) -> Result:
    """Whether a provider is right, and how long its first call takes."""
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
    except Exception as failure:  # the others are measured all the same, and this one fails its test
        return Result(told(failure), limit=limit)
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
    """A copy of random data, the ceiling on the rates of all that reads and writes memory."""

    def __init__(self, device: torch.device) -> None:
        size = COPY_BYTES[device.type]
        own = torch.Generator(device).manual_seed(0)
        self._source = torch.randn(size // 4, device=device, generator=own)
        self._target = torch.empty_like(self._source)
        self.bytes = 2 * size
        """Read and written."""

    def __call__(self) -> object:
        return self._target.copy_(self._source)
