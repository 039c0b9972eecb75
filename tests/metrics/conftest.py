"""Register the quick extractor for each test."""

from __future__ import annotations

import pytest

from fastdat.metrics import extractors, register_extractor
from tests.metrics.helpers import Colours, colours


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractors, "FACTORIES", dict(extractors.FACTORIES))
    register_extractor("colours", colours)
    Colours.images_seen = 0
