"""Regularizers by name: read from plain mappings such as ``{name: r1, gamma: 1, every: 16}``, and written back to them.

What is read is a description of a term that never changes, can be hashed and compared, and so may stand in a frozen
configuration: the term itself, or for LeCam, whose anchors change, its settings. ``make_term`` makes the term of a run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor

from fastdat.regularizers.augmentation_consistency import BCR, CR
from fastdat.regularizers.consistency import AR, RFM
from fastdat.regularizers.diggan import DigGAN
from fastdat.regularizers.finite_difference import ApproxR1, ApproxR2
from fastdat.regularizers.gradient_penalty import DRAGAN, GP, LP, R1, R2, GradientPenalty, ZeroGP
from fastdat.regularizers.lecam import LeCam, LeCamSettings
from fastdat.regularizers.lipschitz import ALP
from fastdat.regularizers.max_gradient import MaxGP
from fastdat.regularizers.san import SAN
from fastdat.regularizers.sign_attacks import ASGAN, RobGAN, SignAttack
from fastdat.regularizers.term import Term
from fastdat.regularizers.term_fields import owner_name
from fastdat.util.errors import ConfigError
from fastdat.util.settings import FieldTypeError, nearest

TERMS: dict[str, type[Term]] = {
    "gp": GP,
    "lp": LP,
    "r1": R1,
    "r2": R2,
    "0gp": ZeroGP,
    "dragan": DRAGAN,
    "gradient_penalty": GradientPenalty,
    "ar": AR,
    "rfm": RFM,
    "alp": ALP,
    "ar1": ApproxR1,
    "ar2": ApproxR2,
    "cr": CR,
    "bcr": BCR,
    "lecam": LeCam,
    "diggan": DigGAN,
    "maxgp": MaxGP,
    "san": SAN,
}
"""The terms by the names that configurations give them."""

ATTACKS: dict[str, type[SignAttack]] = {"asgan": ASGAN, "robgan": RobGAN}
"""Attacks that may stand in place of DAT's, by name."""

TermDescription: TypeAlias = Term | LeCamSettings
"""What describes a term for good; a LeCam itself is none."""


def described(name: str) -> type[Any]:
    """The frozen dataclass whose fields are the settings of the term with that name; ``name`` is one of ``TERMS``."""
    return LeCamSettings if name == "lecam" else TERMS[name]


def read_term(values: Any, place: str = "regularizers") -> TermDescription:
    """The description of one term.

    Args:
        values: a mapping with ``name`` and any of its settings; or a term.
        place: its name in messages, for example ``"regularizers[0]"``.

    Raises:
        FieldTypeError, ConfigError: it is neither, the name or a setting is unknown, or a value is wrong.
    """
    if isinstance(values, LeCam):
        values = values.settings
    if isinstance(values, (Term, LeCamSettings)):
        _refuse_tensor(values, place)
        return values
    example = "for example {name: r1, gamma: 1, every: 16}"
    if not isinstance(values, Mapping):
        raise FieldTypeError(f"{place} must be a mapping with a name, {example}; got {values!r}")
    name = values.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"{place} needs the name of a regularizer, {example}; got {dict(values)!r}")
    if name not in TERMS:
        raise ConfigError(
            f"{place}.name is unknown: {name!r}. {nearest(name.lower(), TERMS)}There are: {', '.join(TERMS)}"
        )
    settings = {key: value for key, value in values.items() if key != "name"}
    description: TermDescription = _made(described(name), name, settings, place)
    _refuse_tensor(description, place)
    return description


def _made(cls: type[Any], name: str, settings: Mapping[str, Any], place: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in settings:
        if key not in fields:
            raise ConfigError(
                f"unknown setting {place}.{key}. {nearest(str(key), fields)}{name} has: {', '.join(fields)}"
            )
    missing = [key for key, f in fields.items() if f.default is dataclasses.MISSING and key not in settings]
    if missing:
        raise ConfigError(f"{place} needs {', '.join(missing)}: {name} has no default for it")
    try:
        return cls(**settings)
    except (TypeError, ValueError) as error:
        kind = FieldTypeError if isinstance(error, TypeError) else ConfigError
        raise kind(str(error).replace(f"{owner_name(cls)}.", f"{place}.")) from error


def _refuse_tensor(description: TermDescription, place: str) -> None:
    if isinstance(getattr(description, description.strength, None), Tensor):
        raise FieldTypeError(
            f"{place}.{description.strength} is a tensor, which a configuration cannot hold: give a number"
        )


def parse_terms(values: Any, place: str = "regularizers") -> tuple[TermDescription, ...]:
    """The descriptions of several terms, in their order.

    Args:
        values: a list or tuple of what :func:`read_term` reads.
        place: its name in messages.

    Raises:
        FieldTypeError, ConfigError: it is no list, or as in :func:`read_term`.
    """
    if not isinstance(values, (list, tuple)):
        raise FieldTypeError(
            f"{place} must be a list of mappings, for example [{{name: r1, gamma: 1, every: 16}}, {{name: lecam}}]; "
            f"got {values!r}"
        )
    return tuple(read_term(value, f"{place}[{i}]") for i, value in enumerate(values))


def plain(description: TermDescription) -> dict[str, Any]:
    """The name and all settings as numbers, strings and lists, for YAML or JSON; :func:`read_term` is the inverse.

    Raises:
        ConfigError: a setting cannot be written: a tensor, a function, or a term of the user's own.
    """
    name = next((name for name in TERMS if type(description) is described(name)), None)
    if name is None:
        raise ConfigError(
            f"{type(description).__name__} cannot be written to a configuration: it is none of {', '.join(TERMS)}"
        )
    written: dict[str, Any] = {"name": name}
    for field in dataclasses.fields(described(name)):
        value = getattr(description, field.name)
        if isinstance(value, tuple):
            value = list(value)
        if not isinstance(value, (int, float, str, list, type(None))):
            raise ConfigError(f"{name}.{field.name} cannot be written to a configuration: {value!r}")
        written[field.name] = value
    return written


def make_term(description: TermDescription, strength: Tensor | None = None) -> Term:
    """The term that a description describes; a new one if it has a state.

    Args:
        description: of :func:`read_term`.
        strength: a 0-dimensional tensor in place of its weight (its gamma), to be changed in place from step to step.
    """
    if strength is not None:
        changed: Any = dataclasses.replace(description, **{description.strength: strength})  # type: ignore[type-var]
        description = changed
    if isinstance(description, LeCamSettings):
        return LeCam(**{f.name: getattr(description, f.name) for f in dataclasses.fields(description)})
    return description
