"""Changed copies of good files: what a broken disk, a broken program or an attacker makes of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

MOST_BYTES = 1 << 17
"""Of a changed file; a longer one costs time and finds nothing more."""

_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)
_NUMBERS = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 40,
    (1 << 64) - 1,
)
_DECIMALS = (b"-1", b"0", b"1e999", b"9" * 30, b"9" * 5000, b"0x10", b"NaN", b"1.5")


def mutated(rng: random.Random, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """One of the ``seeds`` after one to eight changes.

    Args:
        rng: chooses; the same state gives the same result.
        seeds: good files.
        tokens: pieces of the format, such as keywords, that are put in.
    """
    content = bytearray(rng.choice(seeds))
    for _ in range(1 + min(7, int(rng.expovariate(0.7)))):
        change = rng.choice(_CHANGES)
        change(rng, content, seeds, tokens)
    return bytes(content[:MOST_BYTES])


_Change = Callable[[random.Random, bytearray, Sequence[bytes], Sequence[bytes]], None]


def _place(rng: random.Random, content: bytearray) -> int:
    return rng.randrange(len(content) + 1)


def _flip(rng: random.Random, content: bytearray, *_: Sequence[bytes]) -> None:
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _byte(rng: random.Random, content: bytearray, *_: Sequence[bytes]) -> None:
    if content:
        content[rng.randrange(len(content))] = rng.choice((*_BYTES, rng.randrange(256)))


def _number(rng: random.Random, content: bytearray, *_: Sequence[bytes]) -> None:
    """Put another number in the place of two, four or eight bytes."""
    size, at = rng.choice((2, 4, 8)), _place(rng, content)
    value = rng.choice(_NUMBERS) & ((1 << 8 * size) - 1)
    content[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _decimal(rng: random.Random, content: bytearray, *_: Sequence[bytes]) -> None:
    """Put another number in the place of digits, where there are some."""
    at = _place(rng, content)
    while at < len(content) and not 0x30 <= content[at] <= 0x39:
        at += 1
    end = at
    while end < len(content) and 0x30 <= content[end] <= 0x39:
        end += 1
    content[at:end] = rng.choice(_DECIMALS)


def _token(rng: random.Random, content: bytearray, _: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    if tokens:
        token, at = rng.choice(tokens), _place(rng, content)
        content[at : at + rng.choice((0, len(token)))] = token


def _nest(rng: random.Random, content: bytearray, _: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    """Repeat a piece, mostly a few times and sometimes thousands of times."""
    at = _place(rng, content)
    own = bytes(content[at : at + rng.randrange(1, 9)])
    piece = rng.choice(tokens) if tokens and rng.random() < 0.5 else own
    times = rng.choice((2, 3, 10, 100, 5000))
    content[at:at] = (piece * times)[: MOST_BYTES // 2]


def _delete(rng: random.Random, content: bytearray, *_: Sequence[bytes]) -> None:
    at = _place(rng, content)
    del content[at : at + rng.choice((1, 2, 4, 16, 1000))]


def _copy(rng: random.Random, content: bytearray, *_: Sequence[bytes]) -> None:
    """Copy a piece to another place."""
    start, at = _place(rng, content), _place(rng, content)
    piece = content[start : start + rng.choice((1, 4, 16, 200))]
    content[at : at + rng.choice((0, len(piece)))] = piece


def _splice(rng: random.Random, content: bytearray, seeds: Sequence[bytes], _: Sequence[bytes]) -> None:
    """Go on with the end of another good file."""
    other = rng.choice(seeds)
    content[_place(rng, content) :] = other[rng.randrange(len(other) + 1) :]


def _cut(rng: random.Random, content: bytearray, *_: Sequence[bytes]) -> None:
    del content[_place(rng, content) :]


_CHANGES: tuple[_Change, ...] = (
    _flip, _flip, _byte, _byte, _number, _number, _decimal, _token, _token, _nest, _delete, _copy, _splice, _cut,
)  # fmt: skip
