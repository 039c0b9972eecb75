"""CUDA graphs of whole functions: what a function launches is recorded once, and replayed with one call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
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

        Raises:
            Exception: what ``function`` raised, or what made it impossible to record; nothing is recorded then.
        """
        ...

    def reset(self) -> None:
        """No graph that was made so far is used any more."""
        ...


class CUDAGraphs:
    """Records on one device; all graphs share one pool of memory, so they must not run at the same time.

    Args:
        device: with an index.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.reset()

    def reset(self) -> None:
        # A pool whose graphs are all gone cannot be used again while any of its memory is.
        self._stream = torch.cuda.Stream(self.device)
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], T]) -> T:
        # Autograd keeps the stream of a first use; it must be the one that is captured later.
        outer = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(outer)
        with torch.cuda.stream(self._stream):
            result = function()
        outer.wait_stream(self._stream)
        return result

    def record(self, function: Callable[[], T]) -> tuple[Callable[[], None], T]:
        graph, outer = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        first: list[Exception] = []
        try:
            # A loader's thread may allocate pinned memory meanwhile, which a stricter mode would take for an error.
            with (
                torch.cuda.device(self.device),
                torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"),
            ):
                try:
                    result = function()
                except Exception as error:
                    first.append(error)
                    raise
        except Exception as error:
            self._abandon(graph, outer)
            # The end of a capture that failed is an error, too, and says less.
            raise (first[0] if first else error) from None
        return graph.replay, result

    def _abandon(self, graph: torch.cuda.CUDAGraph, outer: torch.cuda.Stream) -> None:
        """After a capture that failed: what torch would have done at its end."""
        torch.cuda.set_stream(outer)
        with suppress(Exception):  # it has been done already, or this torch has no such function
            torch._C._cuda_endAllocateToPool(self.device.index, self._pool)
        with suppress(Exception):
            graph.reset()
        self.reset()
        # torch's random number generator of the device still believes that a graph is being captured, and would refuse
        # to draw; the end of a capture that succeeds tells it otherwise.
        with (
            torch.cuda.device(self.device),
            torch.cuda.graph(torch.cuda.CUDAGraph(), stream=self._stream, capture_error_mode="thread_local"),
        ):
            torch.empty(1, device=self.device).zero_()
