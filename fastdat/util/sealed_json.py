"""JSON that carries the SHA-256 of its own bytes, so that every change of a file is found: a digit, a space, a bit.

The first key is ``"sha256"``. Its value is computed from the bytes with 64 zeros in its place.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from fastdat.util import files, plain_json

_KEY = "sha256"
_ZEROS = "0" * 64
_START = re.compile(rb'\{\s*"sha256": "([0-9a-f]{64})"')


class SealError(ValueError):
    """The bytes are no JSON object, or its digest is missing or wrong.

    Args:
        problem: what is wrong.
        unsealed: the object, if it is one without a digest, such as an older version may have written.
    """

    def __init__(self, problem: str, unsealed: dict[str, Any] | None = None) -> None:
        super().__init__(problem)
        self.unsealed = unsealed


def write(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path`` with its digest, whole or not at all.

    Raises:
        ValueError: ``content`` has the key that the digest needs.
        OSError: the file cannot be written.
    """
    files.write_atomically(path, seal(content, indent=1))


def read(path: Path) -> dict[str, Any]:
    """The content of ``path``, which is what :func:`write` was given.

    Raises:
        SealError: the file was changed since, or another program wrote it.
        OSError: the file is missing or cannot be read.
    """
    return unseal(path.read_bytes())


def seal(content: dict[str, Any], indent: int | None = None) -> bytes:
    """``content`` as JSON with its digest; in one line if ``indent`` is None.

    Raises:
        ValueError: ``content`` has the key that the digest needs.
    """
    if _KEY in content:
        raise ValueError(f"the key {_KEY!r} is kept for the digest; the content has it too")
    text = json.dumps({_KEY: _ZEROS, **content}, indent=indent).encode()
    return text.replace(_ZEROS.encode(), hashlib.sha256(text).hexdigest().encode(), 1)


def unseal(raw: bytes) -> dict[str, Any]:
    """The content that :func:`seal` was given.

    Raises:
        SealError: ``raw`` is not what :func:`seal` returned.
    """
    start = _START.match(raw)
    if start is None:
        raise _unsealed(raw)
    zeroed = raw[: start.start(1)] + _ZEROS.encode() + raw[start.end(1) :]
    if hashlib.sha256(zeroed).hexdigest().encode() != start[1]:
        raise SealError("it has changed since it was written: its content does not fit its sha256")
    content = _object(raw)
    del content[_KEY]
    return content


def _unsealed(raw: bytes) -> SealError:
    """Why ``raw`` has no digest at its start."""
    try:
        content = _object(raw)
    except SealError as error:
        return error
    if _KEY in content:
        return SealError("it has changed since it was written: its sha256 is no longer in its place")
    return SealError("it has no sha256 of its content", content)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        content = plain_json.loads(raw)
    except ValueError as error:
        raise SealError(f"it is no JSON: {error}" if raw else "it is empty") from error
    if not isinstance(content, dict):
        raise SealError(f"expected a JSON object, got {type(content).__name__}")
    return content
