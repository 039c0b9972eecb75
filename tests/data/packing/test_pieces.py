"""Pieces: bounded by images and by bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.helpers import content, packed


def test_few_large_images_are_shared_among_processes(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of a piece are bounded too, and the store does not depend on the bound."""
    monkeypatch.setattr("fastdat.data.packing.pieces.PIECE_BYTES", 5 * 3 * 32 * 32)
    calls: list[int] = []
    packed(pictures, tmp_path / "store", progress=lambda split, done, *_: calls.append(done))
    assert calls == [*range(5, 61, 5), 5, 10]
    monkeypatch.undo()
    packed(pictures, tmp_path / "whole")
    assert content(tmp_path / "store") == content(tmp_path / "whole")
