"""torch's older weight norm, a hook: computed before D is called, as spectral norm is.

The hook leaves the weight of each call behind in an attribute of its layer. A compiled step cannot do that, and an
eager one would keep the graph of its last call alive. The newer parametrization (``parametrizations.weight_norm``) is
a layer like others, and runs as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.weight_norm import WeightNorm


class NormedWeight(NamedTuple):
    """One weight of D, ``g * v / ||v||``, by the names of its tensors in D."""

    target: str
    g: str
    v: str
    dim: int


def normed_weights(modules: Mapping[str, nn.Module]) -> tuple[NormedWeight, ...]:
    """All weights under torch's older weight norm among D's modules by path."""
    found = []
    for path, _, hook in _hooks(modules):
        target = f"{path}.{hook.name}" if path else hook.name
        found.append(NormedWeight(target, target + "_g", target + "_v", hook.dim))
    return tuple(found)


def computed(specs: Sequence[NormedWeight], params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by name, differentiable in ``params``."""
    return {s.target: torch._weight_norm(params[s.v], params[s.g], s.dim) for s in specs}


@contextmanager
def left_out(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Within it D uses the weights that it is given; afterwards it is as before."""
    hooks = list(_hooks(modules))
    tables = [(m._forward_pre_hooks, list(m._forward_pre_hooks.items())) for _, m, _ in hooks]
    stale = [(m, hook.name, m.__dict__.pop(hook.name)) for _, m, hook in hooks]
    try:
        for _, module, hook in hooks:
            for key in [key for key, other in module._forward_pre_hooks.items() if other is hook]:
                del module._forward_pre_hooks[key]
            module._parameters[hook.name] = module._parameters[hook.name + "_v"]
        yield
    finally:
        for module, name, weight in stale:
            del module._parameters[name]
            module.__dict__[name] = weight
        for table, items in tables:
            table.clear()
            table.update(items)


def _hooks(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module, WeightNorm]]:
    for path, module in modules.items():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                yield path, module, hook
