"""The signs of life while a step is compiled, and that none come afterwards."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from fastdat.data import ImageSet
from fastdat.engine import announce
from fastdat.engine import compile as engines
from fastdat.engine.announce import CompilationEnded, CompilationStarted
from fastdat.training import heartbeat as beats
from fastdat.training.display import Bar, Lines
from fastdat.training.heartbeat import Heartbeat
from fastdat.training.recorder import Recorder
from fastdat.training.run_folder import RunFolder
from tests.training.runs import EndError, read_log, tiny, trainer_of

STARTED = CompilationStarted("D's step", torch.Size((4, 2)), torch.float32, torch.device("cpu"), "first")
ENDED = CompilationEnded("D's step", 71.04, succeeded=True)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert announce._LISTENERS == []
    assert [t for t in threading.enumerate() if t.name == "fastdat-heartbeat"] == []


class Screen(Lines):
    """Lines, and an event that is set when there are at least ``enough`` of them."""

    def __init__(self, enough: int) -> None:
        super().__init__(io.StringIO())
        self.lines: list[str] = []
        self.enough, self.full = enough, threading.Event()

    def note(self, text: str) -> None:
        self.lines.append(text)
        if len(self.lines) >= self.enough:
            self.full.set()


def recorder(screen: Any, folder: Path) -> Iterator[Recorder]:
    run = RunFolder(folder)
    try:
        yield Recorder(run, screen, 10)
    finally:
        run.close()


@pytest.fixture
def screen() -> Screen:
    return Screen(enough=3)


@pytest.fixture
def reported(screen: Screen, tmp_path: Path) -> Iterator[Recorder]:
    yield from recorder(screen, tmp_path / "run")


def clock() -> Any:
    """Fifteen seconds later at each look."""
    seconds = iter(range(100, 100_000, 15))
    return lambda: float(next(seconds))


def test_a_compilation_is_reported_while_it_runs(screen: Screen, reported: Recorder, tmp_path: Path) -> None:
    with Heartbeat(reported, 0.01, clock=clock()):
        announce._tell(STARTED)
        assert screen.full.wait(20)
        announce._tell(ENDED)
        shown = list(screen.lines)
        time.sleep(0.05)
    assert screen.lines == shown
    assert shown[:3] == [
        "compiling D's step ...",
        "compiling D's step ... 15 s",
        "compiling D's step ... 30 s",
    ]
    assert shown[-1] == "D's step is ready after 71.0 s"
    log = read_log(tmp_path / "run")
    assert "D's step is ready after 71.0 s" in log
    assert "compiling" not in log


def test_nothing_is_shown_between_reports(screen: Screen, reported: Recorder) -> None:
    with Heartbeat(reported, 1000.0):
        announce._tell(STARTED)
        announce._tell(CompilationEnded("D's step", 1.0, succeeded=False))
    assert screen.lines == [
        "compiling D's step ...",
        "compiling D's step ended after 1.0 s without a result",
    ]


@pytest.mark.parametrize("error", [EndError, KeyboardInterrupt])
def test_an_error_ends_it(error: type[BaseException], screen: Screen, reported: Recorder) -> None:
    """Even where the end of the compilation was never told."""

    def compile() -> None:
        with Heartbeat(reported, 0.01):
            announce._tell(STARTED)
            assert screen.full.wait(20)
            raise error

    with pytest.raises(error):
        compile()
    shown = len(screen.lines)
    time.sleep(0.05)
    assert len(screen.lines) == shown


def test_a_screen_that_is_gone_ends_it(
    screen: Screen, reported: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Heartbeat(reported, 0.01) as heartbeat:
        announce._tell(STARTED)
        monkeypatch.setattr(screen, "note", lambda text: 1 / 0)
        beat = heartbeat._beat
        assert beat is not None
        beat.join(20)
        assert not beat.is_alive()


def test_on_a_terminal_it_is_beside_the_bar(tmp_path: Path) -> None:
    file = io.StringIO()
    bar = Bar(10, Console(file=file, force_terminal=True, width=150))
    assert bar.every <= 1
    for reported in recorder(bar, tmp_path / "run"):
        with bar, Heartbeat(reported, 1000.0):
            announce._tell(STARTED)
            bar._progress.refresh()
            assert "compiling D's step ..." in file.getvalue()
            announce._tell(ENDED)
            file.truncate(0)
            bar._progress.refresh()
            assert "compiling" not in file.getvalue()


@pytest.fixture
def only_traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch.compile traces and runs the traced graph as it is."""
    compile = torch.compile

    def traced(function: Any, *, options: dict[str, Any], **rest: Any) -> Any:
        kept = {key: value for key, value in options.items() if key == "guard_filter_fn"}
        return compile(function, backend="eager", options=kept, **rest)

    monkeypatch.setattr(torch, "compile", traced)
    engines._ENGINES.clear()
    yield
    engines._ENGINES.clear()


@pytest.mark.usefixtures("only_traced")
@pytest.mark.slow
def test_a_run_reports_what_it_compiles(tmp_path: Path) -> None:
    config = tiny("mlp-dat-gaussians", compile=True, steps=2)
    trainer_of(config, None, tmp_path / "run").train()
    ready = [
        line.split("  ", 1)[1] for line in read_log(tmp_path / "run").splitlines() if " is ready " in line
    ]
    assert [line.partition(" is ready after ")[0] for line in ready] == [
        "G without gradients",
        "D's step",
        "G's step",
    ]


@pytest.mark.usefixtures("only_traced")
def test_an_interrupt_while_compiling_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Event()
    start = beats._Beat.start

    def noted(beat: beats._Beat) -> None:
        start(beat)
        started.set()

    monkeypatch.setattr(beats._Beat, "start", noted)

    def interrupted(self: object, entries: object) -> list[bool]:
        raise KeyboardInterrupt

    monkeypatch.setattr(engines.Guards, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer_of(tiny("mlp-dat-gaussians", compile=True, steps=2), None, tmp_path / "run").train()
    assert started.is_set()
    log = read_log(tmp_path / "run")
    assert "compiling D's step ended after" in log
    assert "stopped by an interrupt after 0 steps" in log


def test_an_eager_run_reports_no_compilation(few_images: ImageSet, tmp_path: Path) -> None:
    trainer_of(tiny(steps=1), few_images, tmp_path / "run").train()
    assert "is ready" not in read_log(tmp_path / "run")
