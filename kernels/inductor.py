"""What torch.compile's backend has to know of the operators before it compiles a graph with one."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from torch._inductor.custom_graph_pass import get_hash_for_files
from torch._library.utils import get_layout_constraint_tag

from fastdat.kernels import (
    differentiable,
    ops,  # noqa: F401 - makes the operators
)
from fastdat.kernels.operator import OPERATORS


def introduce_operators() -> None:
    """Let inductor know that the operators take their arguments from memory. A second call costs almost nothing.

    Without this, inductor notices it only when it first lowers a call of an operator (torch 2.11 to 2.13), which is
    too late for the arguments of that call: each of their uses computes them anew. The first step that a process
    compiles would launch more kernels than the same step compiled later, and for ``power_iterations="per_forward"``
    torch 2.11 would format the nested arguments for a log message, which practically never ends.
    """
    from torch._inductor import lowering  # takes seconds, which only those who compile should wait

    for operator in OPERATORS.values():
        op = operator.overload
        if op not in lowering.lowerings:
            constraint = lowering.tag_to_layout_constraint(get_layout_constraint_tag(op))
            lowering.make_fallback(op, layout_constraint=constraint)


def cacheable() -> dict[str, str]:
    """Inductor's option ``unsafe_marked_cacheable_functions``, which lets a graph with an operator be found again.

    AOTAutograd's cache takes a function that it does not know by its name, and by what stands here: the contents of all
    files that its derivative may come from.
    """
    return dict.fromkeys((f"{differentiable.__name__}.{name}" for name in OPERATORS), _hash())


@cache
def _hash() -> str:
    files = sorted(str(path) for path in Path(__file__).parent.glob("*.py"))
    return get_hash_for_files(tuple(files)).hex()
