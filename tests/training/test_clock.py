"""The time of training, without that of scoring."""

from __future__ import annotations

import time

import pytest

from fastdat.training.clock import Clock


def test_scoring_counts_neither_for_the_first_step_nor_for_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(done=4, before=10.0)
    clock.start()
    now[0] = 30.0  # scoring step 4, which a stop had left undone
    clock.pause(30.0)
    now[0] = 31.0
    assert clock.since_start() == 1.0
    assert clock.lap(5) == 1.0
    now[0] = 61.0
    clock.pause(29.0)
    assert clock.lap(6) == 1.0
