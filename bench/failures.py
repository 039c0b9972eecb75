"""How a failure is told in a table or a JSON."""

from __future__ import annotations


def told(failure: Exception) -> str:
    """Its kind and the first line of what it says; a log has the rest."""
    return f"{type(failure).__name__}: {str(failure).strip().partition(chr(10))[0]}"
