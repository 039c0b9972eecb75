"""Settings of a part that is chosen by its name, such as ``{name: r1, gamma: 1}``: a mapping that cannot be changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class NamedSettings(Mapping[str, Any]):
    """An immutable mapping: the name of a part, and its settings.

    It can be compared with any mapping, and hashed.

    Args:
        values: ``"name"`` and what the part of that name takes: numbers, text, true, false, None, or lists of these.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }

    @property
    def name(self) -> str:
        """Which part it is."""
        return str(self._values["name"])

    @property
    def settings(self) -> dict[str, Any]:
        """The settings without the name."""
        return {key: value for key, value in self._values.items() if key != "name"}

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        return repr(self._values)


def changed(now: Any, place: str, value: Any) -> Any:
    """A plain copy of settings with one more or another value, for ``--set attack.eps=0.1``.

    Args:
        now: one :class:`NamedSettings`, or a tuple of them.
        place: ``"eps"`` of the one, ``"r1.gamma"`` of that among them which has the name r1.
        value: the new value.

    Returns:
        A dict, or a list of dicts; None where ``now`` has no such part.
    """
    if isinstance(now, Mapping):
        return {**now, place: value}
    name, dot, key = place.partition(".")
    parts = [dict(part) for part in now or ()]
    found = [part for part in parts if part["name"] == name]
    if not dot or len(found) != 1:
        return None
    found[0][key] = value
    return parts
