"""Names in stats.jsonl of what regularizers measure: ``term_r1`` and ``term_r1_grad_norm``."""

from __future__ import annotations

_TERM = "term_"
_NORM = "_grad_norm"


def of_term(name: str) -> str:
    """The name of a measurement that ``DATInfo.terms`` calls ``"r1"`` or ``"r1.grad_norm"``."""
    return _TERM + name.replace(".grad_norm", _NORM)


def is_of_term(key: str) -> bool:
    """Whether a regularizer measured it."""
    return key.startswith(_TERM)


def term_of(key: str) -> tuple[str, bool]:
    """The regularizer that measured it, and whether it is its gradient norm: ``("r1", True)``."""
    name = key.removeprefix(_TERM)
    return name.removesuffix(_NORM), name.endswith(_NORM)
