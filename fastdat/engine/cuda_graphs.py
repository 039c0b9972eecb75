"""CUDA graphs of whole functions: what a function launches is recorded once, and replayed with one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")


class Recorder(Protocol):
    """Records what a function does to tensors. ``CUDAGraphs`` is one; tests have another that needs no GPU."""

    def warm_up(self, function: Callable[[], T]) -> T:
        """Call ``function`` as it is, in the place where it will be recorded."""
        ...

    def record(self, function: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """Call ``function`` and record what it launches, which is not computed now.

        Returns:
            a function that computes it, on the same tensors each time; and what ``function`` returned, whose tensors
            have their values after each replay.
        """
        ...


class CUDAGraphs:
    """Records on one device; all graphs share one pool of memory, so they must not run at the same time.

    Args:
        device: with an index.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], T]) -> T:
        # Autograd keeps the stream of a first use; it must be the one that is captured later.
        outer = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(outer)
        with torch.cuda.stream(self._stream):
            result = function()
        outer.wait_stream(self._stream)
        return result

    def record(self, function: Callable[[], T]) -> tuple[Callable[[], None], T]:
        graph = torch.cuda.CUDAGraph()
        # A loader's thread may allocate pinned memory meanwhile, which a stricter mode would take for an error.
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"),
        ):
            result = function()
        return graph.replay, result
