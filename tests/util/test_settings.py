"""One checker for the fields of any frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from fastdat.util.errors import ConfigError
from fastdat.util.settings import (
    Distinct,
    FieldTypeError,
    Increasing,
    NoneMeans,
    NonNegativeFloat,
    PositiveInt,
    Range,
    check_fields,
    replace,
)


@dataclass(frozen=True, slots=True)
class Inner:
    weight: NonNegativeFloat = 1.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Outer:
    kind: Literal["l1", "l2"] = "l2"
    count: PositiveInt | None = None
    share: Annotated[float, Range(above=0, below=1)] = 0.5
    limit: Annotated[PositiveInt | None, NoneMeans("no limit")] = None
    bounds: Annotated[tuple[float, float], Increasing()] | None = None
    names: Annotated[tuple[str, ...], Distinct()] = ("a",)
    flag: bool = False
    switch: Literal["auto"] | bool = False
    level: Literal["low", "high"] | PositiveInt | None = None
    anything: Any = None
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        check_fields(self, prefix="Outer.")


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("kind", "l3", ConfigError, "one of l1, l2; got 'l3'"),
        ("switch", 1, FieldTypeError, "auto or true or false; got 1"),
        ("switch", "on", FieldTypeError, "auto or true or false; got 'on'"),
        ("switch", None, FieldTypeError, "auto or true or false; got None"),
        (
            "level",
            0,
            ConfigError,
            r"one of low, high or an integer >= 1, or None \(null in YAML and --set\); got 0",
        ),
        ("count", 0, ConfigError, r"an integer >= 1 or None \(null in YAML and --set\); got 0"),
        ("count", True, FieldTypeError, r"an integer >= 1 or None \(null in YAML and --set\); got True"),
        ("count", 1.0, FieldTypeError, r"an integer >= 1 or None \(null in YAML and --set\); got 1.0"),
        ("share", 1, ConfigError, "a finite number > 0 and < 1; got 1"),
        ("share", float("nan"), ConfigError, "a finite number > 0 and < 1; got nan"),
        ("share", "0.5", FieldTypeError, "a finite number > 0 and < 1; got '0.5'"),
        ("share", None, FieldTypeError, "a finite number > 0 and < 1; got None"),
        (
            "limit",
            -1,
            ConfigError,
            r"an integer >= 1 or None \(null in YAML and --set\), where None means no limit; got -1",
        ),
        (
            "bounds",
            (1, 1),
            ConfigError,
            r"\[a, b\], each a finite number, with a < b, or None \(null in YAML and --set\); got \(1, 1\)",
        ),
        ("bounds", (1, 2, 3), ConfigError, r"\[a, b\], each a finite number"),
        ("bounds", 3, FieldTypeError, r"\[a, b\], each a finite number"),
        ("names", [], ConfigError, r"a list \[a, b, ...\], each text, none of them twice; got \[\]"),
        ("names", ["a", "a"], ConfigError, "a list .*, none of them twice"),
        ("names", ["a", 1], FieldTypeError, "a list .*, each text"),
        ("flag", 1, FieldTypeError, "true or false; got 1"),
        ("inner", 3, FieldTypeError, "an instance of Inner; got 3"),
    ],
)
def test_errors_name_field_value_and_expectation(
    name: str, value: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=rf"^Outer\.{name} must be {message}") as info:
        Outer(**{name: value})
    assert type(info.value) is error


def test_a_wrong_type_is_a_type_error_and_a_value_error() -> None:
    assert issubclass(FieldTypeError, TypeError)
    assert issubclass(FieldTypeError, ValueError)


def test_values_are_converted() -> None:
    outer = Outer(share=0.25, bounds=[0, 1], names=["a", "b"], anything=[1], inner=Inner(2))  # type: ignore[arg-type]
    assert (outer.bounds, outer.names, outer.anything) == ((0.0, 1.0), ("a", "b"), [1])
    assert type(outer.inner.weight) is float
    assert hash(Outer(bounds=[0, 1])) == hash(Outer(bounds=(0.0, 1.0)))  # type: ignore[arg-type]


def test_replace_reaches_inner_dataclasses() -> None:
    assert replace(Outer(), {"inner.weight": 3, "kind": "l1"}) == Outer(kind="l1", inner=Inner(3.0))
    assert replace(Outer(), {"inner": {"weight": 3}}).inner == Inner(3.0)
    with pytest.raises(ConfigError, match=r"^inner\.weight must be a finite number >= 0; got -1$"):
        replace(Outer(), {"inner.weight": -1})
    with pytest.raises(ConfigError, match=r"unknown setting inner\.w\. There are: inner\.weight"):
        replace(Outer(), {"inner.w": 1})
    with pytest.raises(
        ConfigError, match=r"unknown setting weight. Did you mean inner\.weight\? There are: kind, count"
    ):
        replace(Outer(), {"weight": 1})
