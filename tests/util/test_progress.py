"""How far something is, in words."""

from __future__ import annotations

from fastdat.util.progress import ProgressText


def test_the_time_left_follows_from_the_rate() -> None:
    now = 100.0
    text = ProgressText(lambda: now)
    assert text("reals (train)", 100, 1000) == "reals (train): 100 of 1,000 (10%)", "no rate is known yet"
    now += 10
    assert text("reals (train)", 300, 1000) == "reals (train): 300 of 1,000 (30%), 0:00:35 left"
    now += 35
    assert (
        text("reals (train)", 1000, 1000, ", 2 left out")
        == "reals (train): 1,000 of 1,000 (100%, 2 left out)"
    )


def test_each_thing_has_its_own_rate() -> None:
    now = 0.0
    text = ProgressText(lambda: now)
    text("reals", 0, 10)
    now += 1
    text("reals", 10, 10)
    assert text("fakes", 4, 10) == "fakes: 4 of 10 (40%)"
    now += 60
    assert text("fakes", 5, 10) == "fakes: 5 of 10 (50%), 0:05:00 left"
    assert text("fakes", 1, 10) == "fakes: 1 of 10 (10%)", "it began anew"
    assert text("nothing", 0, 0) == "nothing: 0 of 0 (0%)"
