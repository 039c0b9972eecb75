"""Tells listeners and Python's logging that a compilation runs, which may take minutes without a sign of life.

torch.compile itself says when it begins and ends to make a graph, and it is asked only where a graph may be made: the
call of a step that there is a graph for does not come here.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch._dynamo.callback import CallbackArgs, CallbackTrigger, callback_handler
from torch.utils.weak import WeakIdKeyDictionary

_LOGGER = logging.getLogger("fastdat")

Reason = Literal["first", "samples", "numbers", "changed"]
"""Why a step is compiled: for the first time; only the number of samples differs from all before, or only numbers among
the attack's settings; or no graph that was made before fits, since something that the step depends on has changed."""


@dataclass(frozen=True, slots=True)
class CompilationStarted:
    """A graph is going to be made, or to be read from torch's cache on the disk."""

    what: str
    """``"D's step"``, for example."""
    shape: torch.Size
    """Of the samples of one side."""
    dtype: torch.dtype
    device: torch.device
    reason: Reason


@dataclass(frozen=True, slots=True)
class CompilationEnded:
    """The graph is ready, or could not be made."""

    what: str
    seconds: float
    succeeded: bool


Event = CompilationStarted | CompilationEnded
Listener = Callable[[Event], None]

_LISTENERS: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within it, ``listener`` gets the events of all threads, each in the thread that compiles.

    It must not compile anything itself. What it raises is logged, and the compilation goes on.
    """
    _LISTENERS.append(listener)
    try:
        yield
    finally:
        _LISTENERS.remove(listener)


@contextmanager
def announced(
    what: str, samples: Tensor, reason: Reason = "first", before: Sequence[int] = ()
) -> Iterator[None]:
    """Within it, the graphs that this thread makes are announced, and those that autograd makes for its backward pass.

    Args:
        what: is compiled.
        samples: of one side (m, ...).
        reason: why a graph would be made, if one is.
        before: numbers of samples of the calls before, if they are the reason.
    """
    graphs = _Graphs(what, samples, reason, before)
    callback_handler.register_start_callback(graphs.start)
    callback_handler.register_end_callback(graphs.end)
    try:
        yield
    finally:
        with suppress(ValueError):  # torch.compiler.reset() has removed them
            callback_handler.remove_start_callback(graphs.start)
            callback_handler.remove_end_callback(graphs.end)
        graphs.close()


class _Graphs:
    """The graphs that one call makes, one after the other; most often one or none."""

    def __init__(self, what: str, samples: Tensor, reason: Reason, before: Sequence[int]) -> None:
        self._what, self._reason, self._before = what, reason, before
        self._shape, self._dtype, self._device = samples.shape, samples.dtype, samples.device
        self._thread = threading.get_ident()
        self._handled = sys.exception()
        self._running: tuple[str, float] | None = None
        self._is_first = True

    def start(self, args: CallbackArgs) -> None:
        if self._running is not None or not self._concerns(args):
            return
        is_backward = args.callback_trigger is CallbackTrigger.LAZY_BACKWARD
        what = f"the backward pass of {self._what}" if is_backward else self._what
        self._running = what, time.monotonic()
        again = {"samples": self._of_samples, "numbers": self._of_numbers}.get(self._reason)
        if again is not None and self._is_first:
            _LOGGER.warning(again())
        else:
            _LOGGER.info(self._text(what))
        self._is_first = False
        _tell(CompilationStarted(what, self._shape, self._dtype, self._device, self._reason))

    def end(self, args: CallbackArgs) -> None:
        if self._concerns(args):
            self._end(succeeded=sys.exception() is self._handled or self._thread != threading.get_ident())

    def close(self) -> None:
        """Nothing is compiled any more."""
        self._end(succeeded=False)

    def _end(self, succeeded: bool) -> None:
        if self._running is None:
            return
        (what, since), self._running = self._running, None
        seconds = time.monotonic() - since
        _LOGGER.info(ended(what, seconds, succeeded))
        _tell(CompilationEnded(what, seconds, succeeded))

    def _concerns(self, args: CallbackArgs) -> bool:
        """Autograd has threads of its own for the backward pass on a GPU."""
        return threading.get_ident() == self._thread or args.callback_trigger is CallbackTrigger.LAZY_BACKWARD

    def _text(self, what: str) -> str:
        again = " again, since no graph that was made before fits" if self._reason == "changed" else ""
        return f"compiling {what}{again}: {tuple(self._shape)}, {self._dtype}, {self._device}"

    def _of_numbers(self) -> str:
        return (
            f"{self._what} is compiled anew for other numbers in its config (eps, say), which may take as long as the "
            "first time. Each value has a graph of its own: let a schedule take few values, or call the step with "
            "compile=False."
        )

    def _of_samples(self) -> str:
        m = self._shape[0]
        drop = (
            " If it is the last, smaller batch of an epoch, drop it: DataLoader(drop_last=True)."
            if m < max(self._before)
            else ""
        )
        before = ", ".join(map(str, self._before))
        return (
            f"{self._what} is compiled anew for {m} samples a side (before: {before}), "
            f"which may take as long as the first time.{drop}"
        )


def ended(what: str, seconds: float, succeeded: bool) -> str:
    """The end of a compilation in words."""
    if succeeded:
        return f"{what} is ready after {seconds:.1f} s"
    return f"compiling {what} ended after {seconds:.1f} s without a result"


def _tell(event: Event) -> None:
    for listener in tuple(_LISTENERS):
        try:
            listener(event)
        except Exception:
            _LOGGER.exception("a listener to compilations failed")


# --- why a step is compiled ----------------------------------------------------------------------------------------

_SIZES: MutableMapping[nn.Module, dict[Hashable, list[int]]] = (
    WeakIdKeyDictionary()
)  # two D may compare as equal
"""D -> kind of call apart from the number of samples -> numbers of samples a side, in the order of first calls."""
_FAMILIES: MutableMapping[nn.Module, set[Hashable]] = WeakIdKeyDictionary()
"""D -> its kinds of calls apart from the numbers in the config."""
KINDS = 64
"""Kinds of calls that are remembered for one D."""


def reason_for(
    D: nn.Module, kind: Hashable, family: Hashable, m: int, has_graph: bool
) -> tuple[Reason, list[int]]:
    """Why a graph of D's step would be made now, and the numbers of samples a side that it has run with.

    Args:
        D, kind: of the call, which is of this kind apart from the number of samples.
        family: its kind apart from the numbers in the config too.
        m: samples a side.
        has_graph: whether there is a graph that may serve.
    """
    sizes = [*_SIZES.get(D, {}).get(kind, [])]
    if has_graph or m in sizes:
        return "changed", sizes
    if sizes:
        return "samples", sizes
    return "numbers" if family in _FAMILIES.get(D, set()) else "first", sizes


def remember(D: nn.Module, kind: Hashable, family: Hashable, m: int) -> None:
    """D's step of this kind, which is of this family, has run with m samples a side."""
    families = _FAMILIES.setdefault(D, set())
    if len(families) < KINDS:
        families.add(family)
    of_D = _SIZES.setdefault(D, {})
    sizes = of_D.setdefault(kind, [])
    if m not in sizes:
        sizes.append(m)
    if len(of_D) > KINDS:
        del of_D[next(iter(of_D))]
