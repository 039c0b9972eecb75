"""Tensors with NaN or inf around them.

What a kernel reads beyond its arguments shows in its results, and what it writes beyond its results in what surrounds
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

MARGIN = 64
"""Elements on both sides: a multiple of 16 bytes in every type, so that alignments are as without them."""


def surrounded(tensor: Tensor, by: float = torch.nan) -> Tensor:
    """A copy with the strides of ``tensor``, which is dense."""
    flat = tensor.new_full((tensor.numel() + 2 * MARGIN,), by)
    copy = flat.as_strided(tensor.shape, tensor.stride(), MARGIN)
    return copy.copy_(tensor)


@contextmanager
def nothing_else_written() -> Iterator[None]:
    """What a launch allocates in this context is NaN within inf, which must still stand there in the end.

    Not NaN again, which a kernel that reads as much too far as it writes would put there itself.
    """
    made: list[Tensor] = []

    def around(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def allocate_and_surround(*args: Any, **named: Any) -> Tensor:
            result = allocate(*args, **named)
            if not result.numel():  # the interpreter's own, which it fills with the memory of an argument
                return result
            made.append(surrounded(result.fill_(torch.nan), by=torch.inf))
            return made[-1]

        return allocate_and_surround

    with (
        patch.object(torch, "empty", around(torch.empty)),
        patch.object(torch, "empty_like", around(torch.empty_like)),
        patch.object(Tensor, "new_empty", around(Tensor.new_empty)),
    ):
        yield
    assert made, "nothing was allocated"
    for result in made:
        flat = result.as_strided((result.numel() + 2 * MARGIN,), (1,), 0)
        assert (flat[:MARGIN] == torch.inf).all()
        assert (flat[-MARGIN:] == torch.inf).all()
