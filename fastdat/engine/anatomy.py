"""D taken apart: its modules, parameters and buffers by name, from one walk.

A step on a GPU can be shorter than the half dozen walks that asking D for each of these would take.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What D consists of at this moment."""

    modules: dict[str, nn.Module]
    """By path, each once, as ``D.named_modules()``."""
    params: dict[str, nn.Parameter]
    """By name, each once, as ``D.named_parameters()``."""
    aliases: tuple[tuple[str, str], ...]
    """(further name, name) of parameters that several modules hold. One module under several paths holds its
    parameter once: put in twice, it would not come out as it was."""
    buffers: dict[str, Tensor]
    """By name, each once, as ``D.named_buffers()``."""


def anatomy(D: nn.Module) -> Anatomy:
    """D's parts."""
    modules = dict(D.named_modules())
    params: dict[str, nn.Parameter] = {}
    buffers: dict[str, Tensor] = {}
    aliases = []
    names: dict[int, str] = {}
    for path, module in modules.items():
        prefix = path + "." if path else ""
        for leaf, p in module._parameters.items():
            if p is None:
                continue
            name = prefix + leaf
            first = names.setdefault(id(p), name)
            if first == name:
                params[name] = p
            else:
                aliases.append((name, first))
        for leaf, b in module._buffers.items():
            if b is not None and names.setdefault(id(b), prefix + leaf) == prefix + leaf:
                buffers[prefix + leaf] = b
    return Anatomy(modules, params, tuple(aliases), buffers)
