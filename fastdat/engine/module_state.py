"""What modules keep in attributes of their own, beside parameters and buffers: kept while D is looked at."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fastdat.engine.structure import own_attributes

_MISSING = object()
_DEPTH = 4
"""Containers and plain objects in each other that are looked into."""
Restore = Callable[[], bool]
"""Puts back what was there, and says whether it was another by then."""
Touched = set[tuple[str, str]]
"""(path of a module, attribute)"""


@contextmanager
def attributes_kept(modules: Mapping[str, nn.Module]) -> Iterator[Touched]:
    """Within it, D may count its calls, move an average of its own, or leave activations behind: afterwards all of this
    is as it was. What was changed is then in the set that the context gives."""
    before = {
        path: {name: (value, _restore_of(value, _DEPTH)) for name, value in own_attributes(module).items()}
        for path, module in modules.items()
    }
    touched: Touched = set()
    try:
        yield touched
    finally:
        for path, module in modules.items():
            attributes, kept = module.__dict__, before[path]
            for name in own_attributes(module).keys() - kept.keys():
                del attributes[name]
                touched.add((path, name))
            for name, (value, restore) in kept.items():
                is_same = attributes.get(name, _MISSING) is value
                if not is_same:
                    attributes[name] = value
                if restore() or not is_same:
                    touched.add((path, name))


def _restore_of(value: object, depth: int) -> Restore:
    """How to put back what ``value`` holds now."""
    if isinstance(value, (nn.Module, type)) or depth == 0:
        return _nothing
    if isinstance(value, Tensor):
        return _restore_of_tensor(value)
    if isinstance(value, torch.Generator):
        return _restore_of_generator(value)
    if isinstance(value, list):
        return _restore_of_list(value, depth)
    if isinstance(value, dict):
        return _restore_of_dict(value, depth)
    if isinstance(value, tuple):
        parts = [_restore_of(item, depth - 1) for item in value]
        return lambda: _restored(parts)
    if hasattr(value, "__dict__") and not callable(value):
        return _restore_of_dict(vars(value), depth)
    return _nothing


def _restored(parts: list[Restore]) -> bool:
    """Restore all parts: whether one of them was another."""
    changed = [restore() for restore in parts]
    return any(changed)


def _nothing() -> bool:
    return False


def _restore_of_tensor(tensor: Tensor) -> Restore:
    if tensor.is_inference():
        return _nothing  # it cannot be changed in place
    copy, version = tensor.detach().clone(), tensor._version

    def restore() -> bool:
        if tensor._version == version:  # a graph of the user's may still need it as it is
            return False
        with torch.no_grad():
            tensor.copy_(copy)
        return True

    return restore


def _restore_of_generator(generator: torch.Generator) -> Restore:
    before = generator.get_state()

    def restore() -> bool:
        is_same = torch.equal(generator.get_state(), before)
        generator.set_state(before)
        return not is_same

    return restore


def _restore_of_list(items: list[Any], depth: int) -> Restore:
    before, parts = list(items), [_restore_of(item, depth - 1) for item in items]

    def restore() -> bool:
        is_same = len(items) == len(before) and all(map(operator.is_, items, before))
        items[:] = before
        return _restored(parts) or not is_same

    return restore


def _restore_of_dict(items: MutableMapping[Any, Any], depth: int) -> Restore:
    before, parts = dict(items), [_restore_of(item, depth - 1) for item in items.values()]

    def restore() -> bool:
        is_same = list(items) == list(before) and all(map(operator.is_, items.values(), before.values()))
        if not is_same:
            items.clear()
            items.update(before)
        return _restored(parts) or not is_same

    return restore
