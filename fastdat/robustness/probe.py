"""How the measurements of this package call the nets: as evaluated, as constants, and leaving nothing behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fastdat.util.net_modes import evaluating, frozen

Args = Sequence[Tensor]
"""Further arguments of a net, one row a sample: ``(labels,)`` of a conditional net, else ``()``."""


@contextmanager
def probed(*nets: nn.Module) -> Iterator[None]:
    """Within it, ``nets`` are in evaluation mode with constant parameters, and gradients are recorded.

    Afterwards modes, ``requires_grad``, the gradient mode and torch's global random numbers are as they were. ``.grad``
    is never touched. A spectral norm in evaluation mode keeps its u and v.
    """
    cuda = {p.device for net in nets for p in net.parameters() if p.is_cuda}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(sorted(cuda, key=str)))
        for net in nets:
            stack.enter_context(evaluating(net))
            stack.enter_context(frozen(net))
        stack.enter_context(torch.enable_grad())
        yield


def logits_of(D: nn.Module, x: Tensor, args: Args = ()) -> Tensor:
    """D's logits of x (N, ...) as (N,): its only output, or the first of several.

    Raises:
        ValueError: D does not return one logit a sample.
    """
    outputs: Any = D(x, *args)
    logits = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    if not isinstance(logits, Tensor) or logits.numel() != len(x):
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ValueError(
            f"D must return one logit a sample, (N,) or (N, 1), alone or as the first of several outputs; got {got} "
            f"for N={len(x)}. Average the scores of patches before they are returned"
        )
    return logits.reshape(len(x))


def logits_in_parts(D: nn.Module, x: Tensor, args: Args = (), batch_size: int | None = None) -> Tensor:
    """The logits (N,) of x, at most ``batch_size`` samples at a time, without gradients."""
    with torch.no_grad():
        parts = [logits_of(D, *rest) for rest in _with_args(batch_size, x, args)]
    return torch.cat(parts)


def midpoint(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    *,
    args_real: Args = (),
    args_fake: Args = (),
    batch_size: int | None = None,
) -> float:
    """The threshold of D's verdict that fits any loss: halfway between its mean logits of reals and of fakes.

    Args:
        D: images -> logits; evaluated.
        xr, xf: reals and fakes (N, ...), of any two numbers.
        args_real, args_fake: D's further arguments of each.
        batch_size: samples that D sees at a time; None: all.

    Raises:
        ValueError: D does not return one logit a sample, or arguments of other lengths.
    """
    real, fake = logits_of_both(D, xr, xf, args_real, args_fake, batch_size)
    return float((real.mean() + fake.mean()) / 2)


def logits_of_both(
    D: nn.Module, xr: Tensor, xf: Tensor, args_real: Args, args_fake: Args, batch_size: int | None
) -> tuple[Tensor, Tensor]:
    """The logits of reals (N,) and of fakes (M,) by the evaluated D, in float64; arguments as in :func:`midpoint`."""
    check_rows(("xr", xr), args_real=args_real)
    check_rows(("xf", xf), args_fake=args_fake)
    with probed(D):
        real, fake = (
            logits_in_parts(D, x, args, batch_size).double() for x, args in ((xr, args_real), (xf, args_fake))
        )
    return real, fake


def split(batch_size: int | None, x: Tensor, *more: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """``x`` and ``more`` in parts of at most ``batch_size`` rows."""
    size = batch_size or max(len(x), 1)
    return zip(*(tensor.split(size) for tensor in (x, *more)), strict=True)


def _with_args(batch_size: int | None, x: Tensor, args: Args) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    for part, *rest in split(batch_size, x, *args):
        yield part, tuple(rest)


def check_rows(samples: tuple[str, Tensor], **arguments: Args) -> None:
    """Check that there is a sample, and that each of a net's further arguments has as many rows as there are samples.

    Raises:
        ValueError: there are none, or other numbers of rows.
    """
    name, x = samples
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"{name} must hold at least one sample, (N, ...); got shape {tuple(x.shape)}")
    for key, tensors in arguments.items():
        for tensor in tensors:
            if not isinstance(tensor, Tensor) or tensor.ndim == 0 or len(tensor) != len(x):
                got = f"shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else repr(tensor)
                raise ValueError(
                    f"{key} must hold tensors with a row for each of the {len(x)} {name}; got {got}"
                )
