"""What D consists of, and a quick exact test whether it still does.

A walk over D's modules is slow beside the launch of a step. A step that is repeated does without: it looks at the
tables of the modules that the walk found (children, parameters, buffers, hooks), and at the attributes that the traced
forward pass read.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from types import BuiltinFunctionType, FunctionType
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch._C._dynamo.guards import dict_version
from torch.nn.modules import module as of_all_modules
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


@dataclass(frozen=True, slots=True)
class Structure:
    """What D consists of at this moment."""

    modules: dict[str, nn.Module]
    """By path, each once, as ``D.named_modules()``."""
    params: dict[str, nn.Parameter]
    """By name, each once, as ``D.named_parameters()``."""
    aliases: tuple[tuple[str, str], ...]
    """(further name, name) of parameters that several modules hold. One module under several paths holds its
    parameter once: if it were put in twice, the second time would replace the first."""
    buffers: dict[str, Tensor]
    """By name, each once, as ``D.named_buffers()``."""


def structure_of(D: nn.Module) -> Structure:
    """D's modules, parameters and buffers from one walk: asking D for each would take half a dozen walks."""
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
    return Structure(modules, params, tuple(aliases), buffers)


# --- equal discriminators ------------------------------------------------------------------------------------------


class Bypassed:
    """A hook that a step leaves out (see ``normalise.bypassed``)."""


_TABLES = ("_parameters", "_buffers", "_modules")
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_GLOBAL_HOOKS = tuple(getattr(of_all_modules, f"_global{name}") for name in _HOOKS)


def signature_of(structure: Structure) -> Hashable:
    """Equal for discriminators that one graph can serve, as far as tables and tensors say it.

    A parametrized layer has a class of its own, made by torch: the class before counts, and the parametrizations are
    modules like others. Hooks are compared by identity: what a hook does is not known here. The attributes of the
    modules are compared too once it is known which of them the forward pass reads (``Reads``).
    """
    numbers = {id(x): i for i, x in enumerate((*structure.modules.values(), *structure.params.values()))}
    numbers |= {id(b): i for i, b in enumerate(structure.buffers.values(), len(numbers))}

    def entries(table: Mapping[str, object]) -> tuple[tuple[str, int | None], ...]:
        return tuple([(name, numbers.get(id(value))) for name, value in table.items()])

    modules = tuple(
        [
            (type_before_parametrizations(m), m.training, *[entries(m.__dict__[name]) for name in _TABLES])
            for m in structure.modules.values()
        ]
    )
    hooks = _hooks([m.__dict__ for m in structure.modules.values()])
    tensors = tuple([(type(t), t.shape, _strides(t), t.dtype, t.device) for t in _tensors(structure)])
    return modules, hooks, tensors


def _strides(tensor: Tensor) -> object:
    """How its numbers lie in memory."""
    return tensor.stride() if tensor.layout is torch.strided else tensor.layout


def _tensors(structure: Structure) -> Iterable[Tensor]:
    return chain(structure.params.values(), structure.buffers.values())


class Same:
    """An object compared by identity. It is not kept alive, unless weak references to it are impossible."""

    __slots__ = ("_hash", "_ref")

    def __init__(self, value: object) -> None:
        self._hash = id(value)
        try:
            self._ref: Callable[[], object] = ref(value)
        except TypeError:
            self._ref = lambda: value

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Same):
            return NotImplemented
        value = self._ref()
        return self is other or (value is not None and value is other._ref())


# --- attributes ----------------------------------------------------------------------------------------------------

_MISSING = object()
_CONSTANT = (
    int, float, complex, bool, str, bytes, type(None), type, torch.dtype, torch.device, torch.memory_format,
)  # fmt: skip
_FUNCTIONS = (FunctionType, BuiltinFunctionType)
_OF_EVERY_MODULE = frozenset(nn.Module().__dict__)


def is_constant(value: object) -> bool:
    """Whether a value cannot change without being replaced."""
    return isinstance(value, (*_CONSTANT, *_FUNCTIONS)) or (
        type(value) is tuple and all(map(is_constant, value))
    )


def own_attributes(module: nn.Module) -> dict[str, Any]:
    """What a module has beside its tables, hooks and mode, which every module has."""
    return {name: value for name, value in module.__dict__.items() if name not in _OF_EVERY_MODULE}


@dataclass(slots=True)
class Reads:
    """What a forward pass has read of the modules' own attributes."""

    values: dict[tuple[str, str], object] = field(default_factory=dict)
    """(path of a module, attribute) -> value, as ``frozen`` gives it."""
    absent: set[tuple[str, str]] = field(default_factory=set)
    """(path of a module, attribute) that the module itself did not have."""

    @classmethod
    def everything(cls, structure: Structure, touched: Collection[tuple[str, str]] = ()) -> Reads:
        """For a forward pass of which it is not known what it reads: all attributes but tensors, which a forward pass
        may leave behind (torch's older spectral norm does), and those that it has ``touched``, such as a counter."""
        values = {
            (path, name): frozen(value)
            for path, module in structure.modules.items()
            for name, value in own_attributes(module).items()
            if not isinstance(value, Tensor) and (path, name) not in touched
        }
        return cls(values)

    def of(self, path: str) -> Reads:
        """Those of one module."""
        values = {key: value for key, value in self.values.items() if key[0] == path}
        return Reads(values, {key for key in self.absent if key[0] == path})

    def hold_for(self, modules: Mapping[str, nn.Module]) -> bool:
        """Whether the modules have the same values in these attributes."""
        for (path, name), value in self.values.items():
            found = modules[path].__dict__.get(name, _MISSING)
            if found is not value and not _equal(frozen(found), value):
                return False
        return not any(name in modules[path].__dict__ for path, name in self.absent)


def frozen(value: object, depth: int = 4) -> object:
    """The value itself if it is a constant, else what it is made of: lists, dicts and plain objects item by item."""
    if isinstance(value, _CONSTANT):
        return value
    if depth and not isinstance(value, (Tensor, nn.Module, Same, *_FUNCTIONS)):
        if isinstance(value, (list, tuple, set, frozenset)):
            items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
            return (type(value), *[frozen(item, depth - 1) for item in items])
        if isinstance(value, Mapping):
            return (type(value), *[(frozen(k, depth - 1), frozen(v, depth - 1)) for k, v in value.items()])
        if hasattr(value, "__dict__") and not callable(value):
            return (type(value), frozen(vars(value), depth - 1))
    return Same(value)


def _equal(a: object, b: object) -> bool:
    """Of two results of ``frozen``. ``1``, ``1.0`` and ``True`` are different, a NaN is equal to another."""
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a is b or a == b or (a != a and b != b)


# --- one discriminator, again --------------------------------------------------------------------------------------

_tables_of = operator.itemgetter(*_TABLES)
_hooks_of = operator.itemgetter(*_HOOKS)


class Snapshot:
    """D as it was at one moment. It keeps nothing of D alive.

    Args:
        structure: of D at this moment.
        reads: the attributes that matter.
    """

    def __init__(self, structure: Structure, reads: Reads) -> None:
        modules = list(structure.modules.values())
        of_modules = [module.__dict__ for module in modules]
        self._paths = list(structure.modules)
        self._modules = [ref(module) for module in modules]
        self._types = list(map(type, modules))
        self._modes = [module.training for module in modules]
        self._reads = {path: reads.of(path) for path in structure.modules}
        self._versions = _versions(of_modules)
        self._contents = _contents(of_modules)
        self._hooks = _hooks(of_modules)
        self._tensors = [ref(tensor) for tensor in _tensors(structure)]

    def holds(self) -> bool:
        """Whether D is as it was: its modules, their types and modes, its parameters and buffers (the same objects),
        all hooks, and the attributes of ``reads``."""
        modules: list[Any] = [module() for module in self._modules]
        if None in modules or list(map(type, modules)) != self._types:
            return False
        of_modules = [module.__dict__ for module in modules]
        versions = _versions(of_modules)
        if versions != self._versions:
            if not self._attributes_hold(modules, versions):
                return False
            self._versions = versions
        # An object that is alive still has its id to itself.
        return (
            _contents(of_modules) == self._contents
            and _hooks(of_modules) == self._hooks
            and _all_alive(self._tensors)
        )

    def _attributes_hold(self, modules: list[nn.Module], versions: list[int]) -> bool:
        """Whether modes and attributes are as they were, in the modules whose attributes have been set."""
        for i, module in enumerate(modules):
            path = self._paths[i]
            if versions[i] != self._versions[i] and not (
                module.training == self._modes[i] and self._reads[path].hold_for({path: module})
            ):
                return False
        return True


def _all_alive(references: list[ref[Tensor]]) -> bool:
    return not [1 for reference in references if reference() is None]


def _contents(of_modules: list[dict[str, Any]]) -> tuple[list[int], list[object], list[int]]:
    """What the tables of children, parameters and buffers hold: how many of each, their names and identities."""
    tables = list(chain.from_iterable(map(_tables_of, of_modules)))
    filled = list(filter(None, tables))
    values = chain.from_iterable(map(dict.values, filled))
    return list(map(len, tables)), list(chain.from_iterable(filled)), list(map(id, values))


def _hooks(of_modules: list[dict[str, Any]]) -> tuple[object, ...]:
    """All hooks, most often none."""
    tables = [*chain.from_iterable(map(_hooks_of, of_modules)), *_GLOBAL_HOOKS]
    return tuple([tuple(map(_token, table.values())) for table in tables]) if any(tables) else ()


def _token(hook: object) -> object:
    if isinstance(hook, SpectralNorm):  # torch's older hook: the step normalises in its place
        return (hook.name, hook.dim, hook.n_power_iterations, hook.eps)
    if isinstance(hook, WeightNorm):
        return (WeightNorm, hook.name, hook.dim)
    return type(hook) if isinstance(hook, Bypassed) else Same(hook)


def _versions(of_modules: list[dict[str, Any]]) -> list[int]:
    """A number for each dict, a new one whenever it has been changed."""
    return list(map(dict_version, of_modules))
