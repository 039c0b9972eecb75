"""Rewrites of the compiled graph, one a file, and the order in which they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx
from torch._inductor.custom_graph_pass import CustomGraphPass

from fastdat.engine.passes.zero_flow import ZeroFlow, options_with

AFTER_DIFFERENTIATION: tuple[CustomGraphPass, ...] = (ZeroFlow(),)
"""Passes over the differentiated ATen graph with fake tensors in ``node.meta["val"]``, first to last."""


class InOrder(CustomGraphPass):
    """Several passes as one, which is what inductor takes."""

    def __init__(self, passes: Sequence[CustomGraphPass]) -> None:
        self._passes = tuple(passes)

    def __call__(self, graph: fx.Graph) -> None:
        for rewrite in self._passes:
            rewrite(graph)

    def uuid(self) -> Any:
        """Inductor's cache keeps graphs by this."""
        return tuple(rewrite.uuid() for rewrite in self._passes)


def options(mode: str) -> dict[str, Any]:
    """``options`` of torch.compile that select its ``mode`` and apply every pass."""
    return options_with(mode, InOrder(AFTER_DIFFERENTIATION))
