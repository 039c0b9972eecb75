"""A list of launches, and a model of the time that a GPU takes for them.

In the model the time of a launch is that of moving its bytes or of computing its FLOPs, whichever is longer, plus the
gap between two launches. A tensor that is read twice is moved twice, whatever the L2 cache holds, and every convolution
runs at the rate of a large one. So the model shows where work grows or shrinks; it does not predict the time of a step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

BYTES_PER_SECOND = 4.3e12
"""About 90% of an H200's memory bandwidth, 4.8 TB/s."""
FLOPS_PER_SECOND = 790e12
"""About 80% of an H200's dense bf16 rate, 989 TFLOP/s."""
GAP_US = 1.5
"""Time between a launch and the next."""
LEAST_US = 2.5
"""Time of a launch with almost no work, with its gap."""

MODEL = {
    "bytes_per_second": BYTES_PER_SECOND,
    "flops_per_second": FLOPS_PER_SECOND,
    "gap_us": GAP_US,
    "least_us": LEAST_US,
}

KINDS = {"poi": "pointwise", "red": "reduction", "per": "reduction", "for": "foreach"}
COPY = re.compile(r"fused_(clone|permute|transpose|convolution|_)+\d+$")


def kind_of_kernel(name: str) -> str:
    """Kind of a Triton kernel of inductor, from its name triton_KIND_fused_OPERATIONS_NUMBER.

    A layout copy is a pointwise kernel whose operations compute nothing.
    """
    kind = KINDS.get(name.split("_")[1], "other of Triton")
    return "layout copy" if kind == "pointwise" and COPY.search(name) else kind


@dataclass(frozen=True)
class Launch:
    """One kernel, or one call of a library."""

    kind: str
    name: str
    bytes: int
    """Bytes of the tensors that it reads and writes."""
    flops: int = 0
    """FLOPs of a convolution or matrix product, by torch's formulas; otherwise 0."""
    part: str = ""
    """Of an iteration, that it belongs to."""

    @property
    def us(self) -> float:
        """Microseconds by the model above."""
        return max(LEAST_US, GAP_US + 1e6 * max(self.bytes / BYTES_PER_SECOND, self.flops / FLOPS_PER_SECOND))


@dataclass
class Total:
    """Sums over several launches."""

    launches: int = 0
    bytes: int = 0
    flops: int = 0
    us: float = 0.0

    def add(self, launch: Launch) -> None:
        self.launches += 1
        self.bytes += launch.bytes
        self.flops += launch.flops
        self.us += launch.us

    def summary(self) -> dict[str, Any]:
        """For the JSON."""
        return {"launches": self.launches, "bytes": self.bytes, "flops": self.flops, "us": round(self.us, 1)}


def total(launches: Iterable[Launch]) -> Total:
    found = Total()
    for launch in launches:
        found.add(launch)
    return found


def by_kind(launches: Iterable[Launch]) -> dict[str, Total]:
    """Kind -> its total, the kind with the most time first."""
    return _grouped((launch.kind, launch) for launch in launches)


def by_part(launches: Iterable[Launch]) -> dict[str, Total]:
    """Part of an iteration -> its total, the part with the most time first."""
    return _grouped((launch.part, launch) for launch in launches)


def _grouped(launches: Iterable[tuple[str, Launch]]) -> dict[str, Total]:
    groups: dict[str, Total] = {}
    for name, launch in launches:
        groups.setdefault(name, Total()).add(launch)
    return dict(sorted(groups.items(), key=lambda item: (-item[1].us, item[0])))


def table(launches: Sequence[Launch], parts: bool = False) -> Iterator[str]:
    """The lines of a table: kind, launches, MB, GFLOP, model us; with ``parts`` part in place of kind."""
    groups, what = (by_part(launches), "part") if parts else (by_kind(launches), "kind")
    yield f"  {what:<40}{'launches':>9}{'MB':>10}{'GFLOP':>9}{'model us':>10}"
    for name, group in (*groups.items(), ("all", total(launches))):
        yield (
            f"  {name:<40}{group.launches:>9}{group.bytes / 1e6:>10.1f}{group.flops / 1e9:>9.1f}"
            f"{group.us:>10.1f}"
        )


def listing(launches: Iterable[Launch]) -> Iterator[str]:
    """One line for each launch, in order."""
    for launch in launches:
        yield (
            f"{launch.us:8.1f} us {launch.bytes / 1e6:9.2f} MB {launch.flops / 1e9:9.2f} GFLOP  "
            f"{launch.kind:<12} {launch.name}" + (f"  ({launch.part})" if launch.part else "")
        )
