"""One checker for the fields of every configuration: frozen dataclasses whose annotations say what a field may hold.

A type alone, or a type with a constraint::

    @dataclass(frozen=True)
    class Penalty:
        weight: NonNegativeFloat = 10.0
        decay: Annotated[float, Range(at_least=0, below=1)] = 0.9
        kind: Literal["l1", "l2"] = "l2"

        def __post_init__(self) -> None:
            check_fields(self)

The same value may come from Python, from YAML or from ``--set key=value``: an int is accepted where a float is
expected, and a list where a tuple is expected.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

from fastdat.util.errors import ConfigError
from fastdat.util.named_settings import changed


class FieldTypeError(ConfigError, TypeError):
    """A setting has a value of the wrong type."""


class Constraint(Protocol):
    """What ``Annotated`` adds to the type of a field."""

    @property
    def words(self) -> str:
        """The constraint in words that follow the type's, for example ``" >= 0"``."""
        ...

    def holds(self, value: Any) -> bool:
        """Whether ``value``, which is of the right type, is allowed."""
        ...


@dataclass(frozen=True)
class Range:
    """Bounds of a number: ``at_least <= value``, ``above < value``, ``value < below``."""

    at_least: float = -math.inf
    above: float = -math.inf
    below: float = math.inf

    @property
    def words(self) -> str:
        limits = [
            f"{sign} {limit if isinstance(limit, int) else f'{limit:.12g}'}"
            for sign, limit in ((">=", self.at_least), (">", self.above), ("<", self.below))
            if math.isfinite(limit)
        ]
        return " " + " and ".join(limits)

    def holds(self, value: Any) -> bool:
        return bool(self.at_least <= value and self.above < value < self.below)


@dataclass(frozen=True)
class Increasing:
    """Each number of a tuple is smaller than the next one."""

    words = ", with a < b"

    def holds(self, value: Any) -> bool:
        return all(a < b for a, b in pairwise(value))


@dataclass(frozen=True)
class Distinct:
    """No value of a tuple occurs twice."""

    words = ", none of them twice"

    def holds(self, value: Any) -> bool:
        return len(set(value)) == len(value)


@dataclass(frozen=True)
class NoneMeans:
    """Says in error messages what ``None`` stands for; allows everything."""

    meaning: str

    @property
    def words(self) -> str:
        return f", where None means {self.meaning}"

    def holds(self, value: Any) -> bool:
        return True


@dataclass(frozen=True)
class ReadBy:
    """``read(name, value)`` converts and checks a field in place of its type; it raises ConfigError with words of its
    own, which begin with ``name``. The field then holds ``NamedSettings``, one or a tuple of them, or None."""

    read: Callable[[str, Any], Any]


SeedInt = Annotated[int, Range(at_least=0, below=2**63)]
"""What torch.manual_seed takes."""
PositiveInt = Annotated[int, Range(at_least=1)]
NonNegativeInt = Annotated[int, Range(at_least=0)]
PositiveFloat = Annotated[float, Range(above=0)]
NonNegativeFloat = Annotated[float, Range(at_least=0)]


def check_fields(instance: Any, prefix: str = "") -> None:
    """Check every field of a frozen dataclass against its annotation; called by its ``__post_init__``.

    Values that only look different (int for float, list for tuple) are converted.

    Args:
        instance: the dataclass.
        prefix: stands before the field's name in error messages.

    Raises:
        FieldTypeError: a value of the wrong type. It is a TypeError, and a ConfigError and so a ValueError.
        ConfigError: a value outside its range. Both name the field, what was given and what is expected.
    """
    cls: Any = type(instance)
    for name, hint in _hints(cls).items():
        object.__setattr__(instance, name, checked(prefix + name, getattr(instance, name), hint))


def checked(name: str, value: Any, hint: Any) -> Any:
    """``value`` converted to the annotated type ``hint``; ``name`` is for error messages.

    Raises:
        FieldTypeError, ConfigError: as in :func:`check_fields`.
    """
    reader = _reader(hint)
    if reader is not None:
        return reader.read(name, value)
    try:
        return _converted(value, hint)
    except (TypeError, ValueError, OverflowError) as error:
        kind = FieldTypeError if isinstance(error, TypeError) else ConfigError
        raise kind(f"{name} must be {_words(hint)}; got {value!r}") from None


def _reader(hint: Any) -> ReadBy | None:
    extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((extra for extra in extras if isinstance(extra, ReadBy)), None)


def replace(instance: Any, changes: Mapping[str, Any], prefix: str = "") -> Any:
    """A copy of a dataclass with ``changes``; ``"dat.eps"`` and ``{"dat": {"eps": ...}}`` reach an inner dataclass,
    ``"attack.eps"`` and ``"regularizers.r1.gamma"`` what a :class:`ReadBy` has read.

    Raises:
        ConfigError: an unknown key, or a bad value.
    """
    cls: Any = type(instance)
    hints = _hints(cls)
    own: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        if not isinstance(key, str):  # YAML has other keys too
            raise ConfigError(
                f"a setting has a name; got {key!r} instead, in {prefix.rstrip('.') or 'the settings'}"
            )
        section, dot, rest = key.partition(".")
        if dot and dataclasses.is_dataclass(hints.get(section)):
            inner.setdefault(section, {})[rest] = value
        elif dataclasses.is_dataclass(hints.get(key)) and isinstance(value, Mapping):
            inner.setdefault(key, {}).update(value)
        elif key in hints:
            own[key] = checked(prefix + key, value, hints[key])
        elif dot and _reader(hints.get(section)) is not None:
            values = changed(own.get(section, getattr(instance, section)), rest, value)
            if values is None:
                raise ConfigError(
                    f"{prefix}{key} is in nothing that is set: give {prefix}{section} as a whole, with the names of "
                    "its parts"
                )
            own[section] = checked(prefix + section, values, hints[section])
        else:
            raise ConfigError(_unknown(prefix, key, cls))
    for section, values in inner.items():
        before = own.get(section, getattr(instance, section))
        own[section] = replace(before, values, prefix=f"{prefix}{section}.")
    try:
        return dataclasses.replace(instance, **own)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _unknown(prefix: str, key: str, cls: Any) -> str:
    """The message about a setting that ``cls`` does not have: the most similar ones, and all."""
    likeness = {name: _likeness(key, name.removeprefix(prefix)) for name in _names(cls, prefix)}
    best = max(likeness.values())
    close = [name for name, value in likeness.items() if value == best >= _CLOSE]
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return (
        f"unknown setting {prefix}{key}. {hint}There are: {', '.join(prefix + name for name in _hints(cls))}"
    )


_CLOSE = 0.6
"""The likeness from which on a name may have been meant; as in difflib."""


def _likeness(key: str, name: str) -> float:
    """Of two settings, from 0 to 1: as they stand, or of their last parts: ``eps`` and ``dat.eps`` are alike."""
    pairs = ((key, name), (key.rpartition(".")[2], name.rpartition(".")[2]))
    return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)


def _names(cls: Any, prefix: str) -> Iterator[str]:
    """The settings of ``cls``, and of the dataclasses in it: ``"dat"``, ``"dat.eps"``."""
    for name, hint in _hints(cls).items():
        yield prefix + name
        if dataclasses.is_dataclass(hint):
            yield from _names(hint, f"{prefix}{name}.")


def nearest(name: str, known: Iterable[str]) -> str:
    """``"Did you mean X? "`` for a name that is close to a known one; else ``""``."""
    close = difflib.get_close_matches(name, list(known), 3)
    return f"Did you mean {' or '.join(close)}? " if close else ""


def _converted(value: Any, hint: Any) -> Any:
    """``value`` as ``hint``; a TypeError or ValueError without a message where it does not fit."""
    origin, options = get_origin(hint), get_args(hint)
    if origin is Annotated:
        value = _converted(value, options[0])
        constraints: tuple[Constraint, ...] = options[1:]
        if value is not None and not all(constraint.holds(value) for constraint in constraints):
            raise ValueError
        return value
    if origin in (Union, UnionType):
        return None if value is None and NoneType in options else _first_that_fits(value, options)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise TypeError
        items = options[:1] * len(value) if options[-1] is Ellipsis else options
        if not value or len(value) != len(items):
            raise ValueError
        return tuple(_converted(item, wanted) for item, wanted in zip(value, items, strict=True))
    if origin is Literal:
        if value not in options:
            raise ValueError
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError
        if not math.isfinite(value):
            raise ValueError
        return float(value)
    elif hint is not Any and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise TypeError
    return value


def _words(hint: Any) -> str:
    """What ``hint`` expects, as the end of "... must be"."""
    origin, options = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _words(options[0]) + "".join(constraint.words for constraint in options[1:])
    if origin in (Union, UnionType):
        *first, last = [_words(option) for option in options if option is not NoneType]
        words = f"{', '.join(first)} or {last}" if first else last
        if NoneType not in options:
            return words
        return f"{words}{',' if ', ' in words else ''} or None (null in YAML and --set)"
    if origin is tuple and options[-1] is Ellipsis:
        return f"a list [a, b, ...], each {_words(options[0])}"
    if origin is tuple:
        return f"[{', '.join('abcdefgh'[: len(options)])}], each {_words(options[0])}"
    if origin is Literal:
        return f"{'one of ' if len(options) > 1 else ''}{', '.join(map(str, options))}"
    named = {int: "an integer", float: "a finite number", bool: "true or false", str: "text"}
    return named.get(hint) or f"an instance of {hint.__name__}"


def _first_that_fits(value: Any, options: tuple[Any, ...]) -> Any:
    """``value`` as the first type of a union that takes it; the error of the last one where none does."""
    *first, last = [option for option in options if option is not NoneType]
    for option in first:
        with contextlib.suppress(TypeError, ValueError):
            return _converted(value, option)
    return _converted(value, last)


def flat_settings(settings: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """``{"eval": {"every": 5}}`` -> ``{"eval.every": 5}``."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
