"""The time of training, without that of scoring."""

from __future__ import annotations

import time

import pytest

from fastdat.training.clock import Clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which tests change."""
    time_now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: time_now[0])
    return time_now


def test_scoring_counts_neither_for_the_first_step_nor_for_the_speed(now: list[float]) -> None:
    clock = Clock(done=4, before=10.0)
    now[0] = 107.0
    clock.start()
    assert clock.seconds() == 10.0
    now[0] = 137.0  # scoring step 4, which a stop had left undone
    clock.pause(30.0)
    now[0] = 138.0
    assert clock.since_start() == 1.0
    assert clock.lap(5) == 1.0
    now[0] = 171.0
    clock.pause(29.0)
    assert clock.lap(7) == 0.5
    assert (clock.since_start(), clock.seconds()) == (34.0, 44.0), (
        "apart from steps, the time of scoring counts"
    )


def test_the_speed_is_that_since_the_last_lap(now: list[float]) -> None:
    """Or since the start, where no step was done since the last lap."""
    clock = Clock(done=4, before=0.0)
    assert clock.fresh
    now[0] = 102.0
    assert clock.lap(7) == 1.5
    assert not clock.fresh
    now[0] = 106.0
    assert clock.lap(9) == 0.5
    now[0] = 110.0
    assert clock.lap(9) == 0.5  # 5 steps in 10 seconds
    assert clock.lap(11) == 0.5, "a lap without a step is not the beginning of the next one"


@pytest.mark.parametrize(("back", "since_start"), [(7, 0.3), (3, 0.0)])
def test_a_rollback_begins_a_lap(back: int, since_start: float, now: list[float]) -> None:
    """Also to a step before the first one of this process, which has then done no step."""
    clock = Clock(done=4, before=0.0)
    now[0] = 105.0
    clock.lap(9)
    clock.back_to(back)
    now[0] = 110.0
    assert clock.lap(back) == pytest.approx(since_start)
    assert clock.lap(back + 2) == pytest.approx(0.4)
