"""Nets may be used while they train, and the training does not notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

import torch
from torch import nn

from fastdat.training.checkpoint import State, rng_state, set_rng_state
from fastdat.util.net_modes import evaluating

_OUTSIDE: ContextVar[State | None] = ContextVar("outside", default=None)
"""The random numbers outside of the outermost :func:`undisturbed`; None outside."""


@contextmanager
def undisturbed(*nets: nn.Module) -> Iterator[None]:
    """Within it, ``nets`` are in evaluation mode and no gradients are recorded; afterwards modes, gradient mode and
    torch's global random numbers are as they were."""
    rng = rng_state()
    token = _OUTSIDE.set(_OUTSIDE.get() or rng)
    try:
        with torch.no_grad(), ExitStack() as stack:
            for net in nets:
                stack.enter_context(evaluating(net))
            yield
    finally:
        _OUTSIDE.reset(token)
        set_rng_state(rng)


def training_rng_state() -> State:
    """torch's global random numbers as training sees them: what has been drawn within :func:`undisturbed` does not
    count, so that a callback may save a checkpoint."""
    return _OUTSIDE.get() or rng_state()
