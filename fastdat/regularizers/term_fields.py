"""The check of a term's fields, which every term runs when it is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from functools import cache
from typing import Any, TypeAlias, get_type_hints

from torch import Tensor

from fastdat.regularizers.term import check_strength
from fastdat.util.settings import checked

Strength: TypeAlias = float | Tensor
"""A number, or a 0-dimensional tensor that may be changed in place from step to step."""


def check_term_fields(instance: Any, checked_elsewhere: Collection[str] = ()) -> None:
    """Check the fields of a frozen dataclass; called by its ``__post_init__``. Ints become floats where these are due.

    Args:
        instance: a term, or the settings of one; its ``strength`` names the field that may be a tensor.
        checked_elsewhere: fields that are left out.

    Raises:
        TypeError: a field of the wrong type.
        ValueError: a value outside its range. Both name the field, what was given and what is expected.
    """
    cls: Any = type(instance)
    owner = owner_name(cls)
    for name in (field.name for field in dataclasses.fields(instance)):
        value = getattr(instance, name)
        if name in checked_elsewhere:
            continue
        if name == instance.strength:
            check_strength(owner, name, value)
            value = value if isinstance(value, Tensor) else float(value)
        else:
            value = checked(f"{owner}.{name}", value, _hints(cls)[name])
        object.__setattr__(instance, name, value)


def owner_name(cls: type[Any]) -> str:
    """What messages call the owner of a field: the class that a user makes, ``LeCam`` for ``LeCamSettings``."""
    return cls.__name__.removesuffix("Settings")


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)
