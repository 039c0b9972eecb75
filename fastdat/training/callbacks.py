"""Callbacks: users' own metrics, measured whenever a line of stats.jsonl is due. They leave training unchanged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fastdat.training.tags import reserved
from fastdat.training.undisturbed import undisturbed
from fastdat.util.errors import ConfigError

if TYPE_CHECKING:
    from fastdat.training.trainer import Trainer

Callback = Callable[["Trainer"], Mapping[str, float] | None]
"""``f(trainer)`` -> name -> number, for the line of stats.jsonl that is due; or None."""

_EXPECTED = "a callback is f(trainer) and returns a dict name -> number, or None"


class Callbacks:
    """Calls users' functions, each with the nets in evaluation mode and without gradients.

    Args:
        functions: the user's callbacks, in the order of their calls.
        monitors: those of the configuration, called before them.

    Attributes:
        failed: what a callback raised; None as long as none did.

    Raises:
        ConfigError: ``functions`` is not a list of functions.
    """

    def __init__(self, functions: Sequence[Callback], monitors: Sequence[Callback] = ()) -> None:
        if not isinstance(functions, (list, tuple)) or not all(map(callable, functions)):
            raise ConfigError(f"callbacks must be a list of functions; {_EXPECTED}; got {functions!r}")
        self._functions = (*monitors, *functions)
        self._left_out: set[str] = set()
        self.failed: Exception | None = None

    def numbers(self, trainer: Trainer) -> dict[str, float]:
        """What the callbacks measure now: finite numbers by name. NaN and infinity are left out, with a note.

        Where a callback fails, :attr:`failed` holds its error and the callbacks after it are not called, so that what
        else is due can still be written.
        """
        nets = [trainer.netG, trainer.netD, *([trainer.ema.net] if trainer.ema else [])]
        found: dict[str, float] = {}
        for function in self._functions:
            try:
                with undisturbed(*nets):
                    returned = function(trainer)
                for name, value in _checked(returned).items():
                    if name in found:
                        raise ConfigError(f"two callbacks return a number called {name!r}: rename one")
                    found[name] = value
            except Exception as error:
                error.add_note(f"The callback {_name(function)} failed after step {trainer.done}.")
                self.failed = error
                break
        finite = {name: value for name, value in found.items() if math.isfinite(value)}
        for name in found.keys() - finite.keys() - self._left_out:
            self._left_out.add(name)
            trainer.note(
                f"{name} is {found[name]} after step {trainer.done}; stats.jsonl leaves out a number of a callback "
                "where it is not finite, and this is said once"
            )
        return finite


def _checked(returned: Any) -> dict[str, float]:
    if returned is None:
        return {}
    if not isinstance(returned, Mapping):
        raise ConfigError(f"{_EXPECTED}; got a {type(returned).__name__}")
    for name in returned:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{_EXPECTED}; got the name {name!r}, which is no text")
        if reserved(name):
            raise ConfigError(
                f"a callback may not return {name!r}, a number that training records: rename it"
            )
    return {name: _number(name, value) for name, value in returned.items()}


def _number(name: str, value: Any) -> float:
    if isinstance(value, Real):  # NumPy's numbers are, too
        return float(value)
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return float(value.detach())
    got = (
        f"a tensor of shape {tuple(value.shape)}"
        if isinstance(value, Tensor)
        else f"{value!r}, a {type(value).__name__}"
    )
    raise ConfigError(f"{_EXPECTED}; {name!r} is {got}")


def _name(function: Callback) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
