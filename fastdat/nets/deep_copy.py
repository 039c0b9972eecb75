"""A copy of a net, whatever the net keeps of its calls."""

from __future__ import annotations

import copy

from torch import Tensor, nn


def deep_copy(net: nn.Module) -> nn.Module:
    """A deep copy of ``net``, also where a module holds what it has computed from its parameters: torch's older
    ``weight_norm`` and ``spectral_norm`` keep the weight of the last call, which autograd does not let be copied."""
    values = (value for module in net.modules() for value in vars(module).values())
    computed = [value for value in values if isinstance(value, Tensor) and not value.is_leaf]
    return copy.deepcopy(net, {id(tensor): tensor.detach().clone() for tensor in computed})
