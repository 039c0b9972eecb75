"""Nets may be used while they train, and the training does not notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from fastdat.training.checkpoint import rng_state, set_rng_state
from fastdat.util.net_modes import evaluating


@contextmanager
def undisturbed(*nets: nn.Module) -> Iterator[None]:
    """Within it, ``nets`` are in evaluation mode and no gradients are recorded; afterwards modes, gradient mode and
    torch's global random numbers are as they were."""
    rng = rng_state()
    try:
        with torch.no_grad(), ExitStack() as stack:
            for net in nets:
                stack.enter_context(evaluating(net))
            yield
    finally:
        set_rng_state(rng)
