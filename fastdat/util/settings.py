"""Settings given as text or plain values, checked against the types of a dataclass's fields.

What a configuration is built of: the same value may come from Python, from YAML and from ``--set key=value``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fastdat.util.errors import ConfigError


def check_fields(instance: Any, minimum: Mapping[str, float]) -> None:
    """Check the fields of a frozen dataclass as it is made: types, put right where only the look differs, and minima.

    Raises:
        ConfigError: naming the field, what was given and what is expected.
    """
    for name, hint in get_type_hints(type(instance)).items():
        object.__setattr__(instance, name, checked(name, getattr(instance, name), hint))
    for name, least in minimum.items():
        value = getattr(instance, name)
        if value is not None and value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value!r}")


def replace(instance: Any, changes: Mapping[str, Any], prefix: str = "") -> Any:
    """A dataclass with ``changes``; ``"dat.eps"`` and ``{"dat": {"eps": ...}}`` reach the dataclasses inside it.

    Raises:
        ConfigError: an unknown key, or a bad value.
    """
    hints = get_type_hints(type(instance))
    own: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        section, dot, rest = key.partition(".")
        if dot and dataclasses.is_dataclass(hints.get(section)):
            inner.setdefault(section, {})[rest] = value
        elif dataclasses.is_dataclass(hints.get(key)) and isinstance(value, Mapping):
            inner.setdefault(key, {}).update(value)
        elif key in hints:
            own[key] = checked(prefix + key, value, hints[key])
        else:
            known = ", ".join(prefix + name for name in hints)
            raise ConfigError(f"unknown setting {prefix}{key}; there are: {known}")
    for section, values in inner.items():
        own[section] = replace(
            own.get(section, getattr(instance, section)), values, prefix=f"{prefix}{section}."
        )
    try:
        return dataclasses.replace(instance, **own)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error


def checked(name: str, value: Any, hint: Any) -> Any:
    """``value`` as the type ``hint``: ints where floats are due, lists where tuples are due.

    Raises:
        ConfigError: it is not of that type.
    """
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None and NoneType in options:
            return None
        (hint,) = (option for option in options if option is not NoneType)
        return checked(name, value, hint)
    if origin is Literal:
        if value in options:
            return value
        raise ConfigError(f"{name} must be one of {', '.join(map(str, options))}; got {value!r}")
    if origin is tuple:
        return _checked_tuple(name, value, options)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise ConfigError(f"{name} must be {_IN_WORDS.get(hint, hint.__name__)}; got {value!r}")
    return value


def _checked_tuple(name: str, value: Any, options: tuple[Any, ...]) -> tuple[Any, ...]:
    if options[-1] is Ellipsis:
        if isinstance(value, list | tuple) and value:
            return tuple(checked(name, item, options[0]) for item in value)
        raise ConfigError(f"{name} must be a list, [a, b, ...]; got {value!r}")
    if isinstance(value, list | tuple) and len(value) == len(options):
        return tuple(checked(name, item, option) for item, option in zip(value, options, strict=True))
    raise ConfigError(f"{name} must be {len(options)} numbers, [a, b]; got {value!r}")


_IN_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a name"}
