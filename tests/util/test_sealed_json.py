"""JSON with a checksum of its own bytes: what was written comes back, and whatever else the bytes say is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from fastdat.util import sealed_json
from fastdat.util.sealed_json import SealError

CONTENT: dict[str, Any] = {
    "name": "Zürich \udc80\n",
    "numbers": [1, -2.5, 10**30],
    "inner": {"a": None, "b": True},
}


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    sealed_json.write(tmp_path / "a.json", CONTENT)
    assert sealed_json.read(tmp_path / "a.json") == CONTENT
    raw = (tmp_path / "a.json").read_bytes()
    assert list(json.loads(raw)) == ["sha256", *CONTENT], "the digest is the first key of plain JSON"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    line = sealed_json.seal(CONTENT)
    assert b"\n" not in line
    assert sealed_json.unseal(line) == CONTENT


@pytest.mark.parametrize("indent", [None, 1])
def test_every_flipped_bit_is_found(indent: int | None) -> None:
    raw = sealed_json.seal(CONTENT, indent)
    for bit in range(8 * len(raw)):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealError):
            sealed_json.unseal(bytes(damaged))


def test_every_truncation_and_addition_is_found() -> None:
    raw = sealed_json.seal(CONTENT)
    for end in range(len(raw)):
        with pytest.raises(SealError):
            sealed_json.unseal(raw[:end])
    for more in (b" ", b"\n", b"\0", b"{}", raw):
        for damaged in (raw + more, more + raw):
            with pytest.raises(SealError):
                sealed_json.unseal(damaged)


def test_rubbish_is_refused() -> None:
    rng = random.Random(0)
    for size in range(300):
        with pytest.raises(SealError):
            sealed_json.unseal(rng.randbytes(size))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "it is empty"),
        (b"no JSON", "it is no JSON: Expecting value"),
        (b"\xff\xfe{}", "it is no JSON: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "it is no JSON: "),
        (b"[1, 2]", "expected a JSON object, got list"),
        (b"null", "expected a JSON object, got NoneType"),
        (b'{"a": 1}', "it has no sha256 of its content"),
        (b'{"a": 1, "sha256": "' + b"0" * 64 + b'"}', "its sha256 is no longer in its place"),
        (b'{"sha256": 3}', "its sha256 is no longer in its place"),
        (b'{"sha256": "' + b"0" * 64 + b'", "a": 1}', "its content does not fit its sha256"),
        (sealed_json.seal({"a": 1}).replace(b"1}", b"2}"), "its content does not fit its sha256"),
        (sealed_json.seal({"a": 1}).replace(b" ", b"  "), "it has changed since it was written"),
    ],
)
def test_messages(raw: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(raw)
    with pytest.raises(SealError, match=message):
        sealed_json.read(tmp_path / "a.json")


def test_an_object_without_a_digest_can_be_looked_at() -> None:
    """So that a reader can tell an older format from damage."""
    with pytest.raises(SealError) as caught:
        sealed_json.unseal(b'{"format": 1}')
    assert caught.value.unsealed == {"format": 1}
    sealed = sealed_json.seal({"format": 1})
    for damaged in (sealed[:-1] + b" }", sealed.replace(b'": "', b'":  "')):
        with pytest.raises(SealError) as caught:
            sealed_json.unseal(damaged)
        assert caught.value.unsealed is None


def test_the_key_of_the_digest_is_not_overwritten() -> None:
    with pytest.raises(ValueError, match="the key 'sha256' is kept for the digest"):
        sealed_json.seal({"sha256": "mine"})


def test_a_missing_file_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sealed_json.read(tmp_path / "a.json")
