"""What torch.compile has to check before it runs a compiled step again, and what fastdat has checked already.

torch.compile guards a graph by everything that was read while it was traced: two thousand checks for a D of SNGAN. The
settings of a step, the parameters and buffers and the tables of D's modules are checked before (``Snapshot``, or the
key of the engine); PyTorch and fastdat themselves do not change. What is left are values that only D knows of: globals
of its file, lists and objects that it reads, class attributes; and what a loss or a regularizer reads, which may be a
user's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from fastdat.engine.structure import Reads, frozen, is_constant

_WRAPPED = r"(?:type\(|dict\(|list\(dict\.keys\()*"
_GLOBAL_OF_LIBRARY = re.compile(
    rf"{_WRAPPED}(?:G\['(?!__import_|___unnamed)|G\['__import_(?:torch|fastdat|contextlib)(?:_dot_|'\])|__import__\()"
)
_CHECKED_BEFORE = re.compile(
    rf"{_WRAPPED}(?:spec\b(?!\.(?:loss|terms)\b)|inputs\.(?:trainable|frozen|buffers)\b)"
)
_IN_D = re.compile(r"D((?:\._modules\['[^']*'\])*)(?:\.(\w+))?(.*)", re.DOTALL)
_CLASS_IN_D = re.compile(r"(?:dict\()?type\(D((?:\._modules\['[^']*'\])*)\)")
_NAME = re.compile(r"\['([^']*)'\]")
_REPLACED = ("_parameters", "_modules")
"""Tables whose entries are checked before, or replaced in the call."""
_TABLES = frozenset(
    name
    for name, value in nn.Module().__dict__.items()
    if isinstance(value, (dict, set)) or name == "training"
)


class Guards:
    """Selects the guards of one compiled step (``guard_filter_fn`` of torch.compile)."""

    def __init__(self) -> None:
        self.reads = Reads()
        """What the graphs have read of D, in place of guards; of a step without graphs, all that D has."""
        self.compilations = 0
        """Graphs made so far."""
        self._modules: Mapping[str, nn.Module] = {}

    @contextmanager
    def tracing(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Within it the step may be traced, with a D of these modules by path."""
        self._modules = modules
        try:
            yield
        finally:
            self._modules = {}

    def __call__(self, entries: Sequence[Any]) -> list[bool]:
        """Whether each of torch.compile's guards has to be checked in every call.

        Raises:
            RuntimeError: the graph was traced outside of ``tracing``, and torch.compile must not keep it: nobody would
                look whether D still is what it was when it was inspected.
        """
        if not self._modules:
            raise RuntimeError("a step was traced that had not been made ready for it")
        self.compilations += 1
        return [self._is_needed(entry) for entry in entries]

    def _is_needed(self, entry: Any) -> bool:
        name = re.sub(r"L\['(\w+)'\]", r"\1", entry.name)  # torch 2.11 writes local variables like this
        if _GLOBAL_OF_LIBRARY.match(name) or _CHECKED_BEFORE.match(name):
            return False
        of_class = _CLASS_IN_D.match(name)
        if of_class:
            module = self._modules.get(_path(of_class[1]))
            return module is None or not _is_of_library(type(module))
        in_D = _IN_D.fullmatch(name.removeprefix("list(dict.keys(").partition("))[")[0])
        return in_D is None or not self._is_known(entry, _path(in_D[1]), in_D[2], in_D[3])

    def _is_known(self, entry: Any, path: str, attribute: str | None, rest: str) -> bool:
        """Whether a guard on ``attribute`` of the module at ``path``, or on ``rest`` of it, is one of ``reads`` or of
        the tables. It is noted there."""
        module = self._modules.get(path)
        if module is None:
            return False
        if attribute is None:
            return self._is_known_of_module(entry, path, module)
        if attribute in _TABLES and (not rest or attribute in _REPLACED):
            return True
        value = module.__dict__.get(attribute)
        if attribute not in module.__dict__ or not is_constant(value) or (rest and type(value) is not tuple):
            return False
        self.reads.values[path, attribute] = frozen(value)
        return True

    def _is_known_of_module(self, entry: Any, path: str, module: nn.Module) -> bool:
        if entry.guard_type == "HASATTR":
            return _is_of_library(type(module))
        if entry.guard_type == "NOT_PRESENT_IN_GENERIC_DICT":
            self.reads.absent.add((path, entry.orig_guard.create_fn.keywords["attr"]))
        return True


def _path(of_modules: str) -> str:
    return ".".join(_NAME.findall(of_modules))


def _is_of_library(kind: type) -> bool:
    return kind.__module__.split(".")[0] in ("torch", "fastdat")
