"""The guard against NaN and infinity: finds them in what training computed, and says where."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fastdat.util.errors import NonFiniteError


class FiniteGuard:
    """Checks the nets of a run, each time for the steps since the last check.

    Args:
        nets: name -> net, as they are before training: buffers that are infinite then may stay so.
    """

    def __init__(self, nets: Mapping[str, nn.Module]) -> None:
        self._nets = nets
        self._constant = infinite(nets)
        self._checked = 0

    def check(self, means: Mapping[str, float], done: int) -> None:
        """Refuse NaN and infinity in ``means`` and in the nets after ``done`` steps.

        Raises:
            NonFiniteError: what is affected, and what to try.
        """
        if means or self._checked < done:
            check_finite(self._nets, means, self._checked + 1, done, apart_from=self._constant)
        self._checked = done

    def restart(self, done: int) -> None:
        """The nets of a checkpoint, which were checked before it was written, are loaded."""
        self._checked = done


def check_finite(
    nets: Mapping[str, nn.Module],
    means: Mapping[str, float],
    first: int,
    last: int,
    apart_from: frozenset[str] = frozenset(),
) -> None:
    """Refuse NaN and infinity in ``means`` over steps ``first`` to ``last`` and in the nets' weights and buffers.

    Args:
        nets: name -> net.
        means: name -> mean.
        first, last: steps, for the message.
        apart_from: names of tensors that may be infinite, from :func:`infinite`.

    Raises:
        NonFiniteError: what is affected, and what to try.
    """
    bad = [f"{name} = {value}" for name, value in means.items() if not math.isfinite(value)]
    named = [
        entry for name, net in nets.items() for entry in _tensors(name, net) if entry[0] not in apart_from
    ]
    finite = torch.stack([tensor.isfinite().all() for _, tensor in named]).tolist()
    weights = [name for (name, _), fine in zip(named, finite, strict=True) if not fine]
    if not bad and not weights:
        return
    lines = [f"training produced NaN or infinity between steps {first} and {last}"]
    if bad:
        lines.append("means over these steps: " + ", ".join(bad))
    if weights:
        lines.append(f"{len(weights)} of {len(named)} tensors are affected, first {weights[0]}")
    lines.append("stats.jsonl and samples/ hold the run up to then.")
    lines.append("Try a smaller lr, precision=fp32 or a smaller dat.eps.")
    raise NonFiniteError("\n".join(lines))


def infinite(nets: Mapping[str, nn.Module]) -> frozenset[str]:
    """Names of buffers that are infinite before training: constants, such as the mask of an attention layer."""
    named = (entry for name, net in nets.items() for entry in _tensors(name, net))
    return frozenset(
        name for name, tensor in named if not (isinstance(tensor, nn.Parameter) or tensor.isfinite().all())
    )


def _tensors(prefix: str, net: nn.Module) -> list[tuple[str, Tensor]]:
    tensors = [*net.named_parameters(), *net.named_buffers()]
    return [(f"{prefix}.{name}", tensor) for name, tensor in tensors if tensor.is_floating_point()]
