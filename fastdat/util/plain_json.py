"""JSON from a file that may come from anywhere: every fault is a ValueError, and no number is too large to be shown."""

from __future__ import annotations

import json
from typing import Any


def loads(text: str | bytes) -> Any:
    """The value that ``text`` describes.

    Raises:
        ValueError: it is no JSON, it is nested too deeply, or it holds an integer of more than 4,300 digits.
    """
    try:
        return json.loads(
            text if isinstance(text, str) else text.decode()
        )  # or json would try UTF-16 and UTF-32
    except RecursionError as error:
        raise ValueError("it is nested too deeply, beyond the recursion limit") from error
