"""Zip archives, as ``torch.save`` writes them, that end with the SHA-256 of their own bytes.

The digest is the archive's comment, so every reader of zip archives reads a sealed one, ``torch.load`` too. It covers
all bytes: those of the tensors, of the headers and of the padding between them.
"""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

_MARK = b"fastdat sha256 "
_COMMENT = len(_MARK) + 64  # bytes: the mark, and the digest in hexadecimal
_LENGTH = 2  # bytes of an archive's last field, the length of the comment that follows it
_BLOCK = 1 << 20


class SealingWriter:
    """Passes the bytes of an archive on to ``file`` and seals it at the end.

    Args:
        file: empty, opened for writing.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self._digest.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()

    def seal(self) -> None:
        """Write the comment; nothing may be written afterwards."""
        comment = _MARK + self._digest.hexdigest().encode()
        self._file.seek(-_LENGTH, os.SEEK_END)
        self._file.write(len(comment).to_bytes(_LENGTH, "little") + comment)


def is_sealed(file: BinaryIO) -> bool:
    """Whether ``file``, opened for reading, ends with a seal, of whatever content. A cut file does not."""
    return _comment(file) is not None


def is_whole(file: BinaryIO) -> bool:
    """Whether a sealed ``file`` has the bytes that were sealed: any other byte, anywhere in it, is noticed."""
    comment = _comment(file)
    if comment is None:
        return False
    digest, left = hashlib.sha256(), file.seek(0, os.SEEK_END) - _COMMENT - _LENGTH
    file.seek(0)
    while left and (block := file.read(min(_BLOCK, left))):
        digest.update(block)
        left -= len(block)
    digest.update(bytes(_LENGTH))  # the length of the comment before there was one
    return not left and comment == _MARK + digest.hexdigest().encode()


def _comment(file: BinaryIO) -> bytes | None:
    start = file.seek(0, os.SEEK_END) - _COMMENT - _LENGTH
    if start < 0:
        return None
    file.seek(start)
    length, comment = int.from_bytes(file.read(_LENGTH), "little"), file.read(_COMMENT)
    return comment if length == _COMMENT and comment.startswith(_MARK) else None
