"""How a failure is written into a table or a JSON."""

from __future__ import annotations


def one_line(failure: Exception) -> str:
    """The error's type and the first line of its message; the log has the rest."""
    return f"{type(failure).__name__}: {str(failure).strip().partition(chr(10))[0]}"
