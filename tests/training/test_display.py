"""What a run shows on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fastdat.training.display import Bar, Lines, display_for, summarise

STATS = {"step": 50, "it_per_s": 2.0, "loss_d": 1.5, "loss_g": -0.25, "logits_real": 0.5, "logits_fake": -0.5}


def test_summary() -> None:
    assert summarise(STATS, 1050) == (
        "step 50/1050  loss D 1.500  G -0.250  D(x) +0.50  D(G(z)) -0.50  2 it/s  ETA 0:08:20"
    )
    assert "delta 0.0012" in summarise(STATS | {"delta_rms_fake": 0.00123}, 50)


def test_lines_are_plain() -> None:
    file = io.StringIO()
    with Lines(file) as lines:
        lines.note("hello")
        for done in range(1, 100):
            lines.advance(done)
        lines.stats(summarise(STATS, 100))
    assert file.getvalue().splitlines() == ["hello", summarise(STATS, 100)]


def test_bar_on_a_terminal() -> None:
    file = io.StringIO()
    with Bar(100, Console(file=file, force_terminal=True, width=150)) as bar:
        bar.note("[50%] is no markup")
        bar.advance(50)
        bar.stats(summarise(STATS, 100))
    text = file.getvalue()
    assert "[50%] is no markup" in text
    assert "50/100" in text
    assert "loss D 1.500" in text


def test_lines_without_a_terminal() -> None:
    assert isinstance(display_for(10), Lines)


def test_forced_colour_does_not_make_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(display_for(10), Lines)


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(display_for(10), Lines)
