"""Division and square root rounded to the nearest, as torch rounds them.

For float32 Triton emits ``div.full`` and ``sqrt.approx``, which may be wrong by two units in the last place; for
float64 it emits the exact instructions.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (Triton has no types.)

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def divide(a, b):
    """``a / b`` of a number or tensor a and a tensor b."""
    if b.dtype == tl.float32:
        return tl.div_rn(a, b)
    else:
        return a / b


@triton.jit
def square_root(a):
    if a.dtype == tl.float32:
        return tl.sqrt_rn(a)
    else:
        return tl.sqrt(a)
