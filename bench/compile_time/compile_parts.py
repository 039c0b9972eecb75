"""The parts of a first step's time, from torch's own clocks, and the table that a benchmark run ends with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

FIRST_STEPS = pytest.StashKey[list["FirstStep"]]()
"""Where a session keeps its measurements."""


@dataclass(frozen=True)
class FirstStep:
    """The first step of one process."""

    name: str
    """Of the step."""
    cache: str
    """cold or warm."""
    parts: dict[str, float]
    """Seconds by the wall clock, one after another; together the time from the process's start to the end of its first
    step."""
    cpu: float
    """Seconds of this process on all its threads, with the second step."""
    cpu_compilers: float
    """Seconds of the C++ compiler, on all cores."""
    autograd_cache_hit: bool
    """Whether AOTAutograd's cache had the step."""

    @property
    def total(self) -> float:
        """Seconds to the end of the first step."""
        return sum(self.parts.values())

    def summary(self) -> dict[str, Any]:
        seconds = {f"{part}_s": value for part, value in self.parts.items()}
        return {
            **seconds,
            "total_s": self.total,
            "cpu_s": self.cpu,
            "cpu_compilers_s": self.cpu_compilers,
            "autograd_cache_hit": self.autograd_cache_hit,
        }


def first_step_of(name: str, cache: str, output: str) -> FirstStep:
    """The measurement that ``first_step`` printed.

    Raises:
        ValueError: it printed none.
    """
    lines = output.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise ValueError(f"the process printed no measurement: {output!r}")
    found = json.loads(lines[-1])
    return FirstStep(
        name,
        cache,
        _parts(found),
        found["cpu"],
        found["cpu_compilers"],
        found["counters"]["aot_autograd"].get("autograd_cache_hit", 0) > 0,
    )


def _parts(found: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each part; no second is counted twice. What a warm cache leaves out takes none."""

    def clock(*keys: str) -> float:
        return sum((float(found["metrics"].get(key, 0)) for key in keys), 0.0)

    in_backend = clock("OutputGraph.call_user_compiler")
    compiling = clock("_compile.compile_inner")
    graph_passes = clock(
        "_recursive_pre_grad_passes", "_recursive_joint_graph_passes", "_recursive_post_grad_passes"
    )
    own_passes = clock("pass.pre_grad_passes.pre_grad_custom_pass") + clock(
        "pass.post_grad_passes.post_grad_custom_pre_pass"
    )
    backend = {
        "own passes": own_passes,
        "torch's passes": graph_passes - own_passes,
        "lowering": clock("GraphLowering.run"),
        "scheduling": clock("Scheduler.__init__"),
        "code": clock("Scheduler.codegen", "PythonWrapperCodegen.generate"),
        "kernels": clock("PyCodeCache.load_by_key_path"),
    }
    return {
        "import": found["import"],
        "inspect": found["inspect"],
        "dynamo": compiling - in_backend,
        **backend,
        "AOTAutograd, rest": in_backend - sum(backend.values()),
        "run": found["first"] - found["inspect"] - compiling,
    }


def tables(steps: list[FirstStep]) -> Iterator[str]:
    """A row for each part, a column for each process; seconds."""
    names = [f"{step.name} {step.cache}" for step in steps]
    yield f"{'seconds':22}" + "".join(f"{name:>14}" for name in names)
    for part in dict.fromkeys(part for step in steps for part in step.parts):
        yield f"{part:22}" + "".join(f"{step.parts.get(part, 0.0):14.2f}" for step in steps)
    yield f"{'total':22}" + "".join(f"{step.total:14.2f}" for step in steps)
    yield f"{'CPU of the process':22}" + "".join(f"{step.cpu:14.2f}" for step in steps)
    yield f"{'CPU of compilers':22}" + "".join(f"{step.cpu_compilers:14.2f}" for step in steps)
    hits = ["hit" if step.autograd_cache_hit else "missed" for step in steps]
    yield f"{'cache of AOTAutograd':22}" + "".join(f"{hit:>14}" for hit in hits)
