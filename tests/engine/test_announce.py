"""What is said of a compilation, to listeners and in the log, and that nothing is said where nothing is compiled."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.callback import callback_handler

import fastdat
from fastdat import DATConfig
from fastdat.engine import announce, prepared
from fastdat.engine import compile as engines
from fastdat.engine.announce import CompilationEnded, CompilationStarted, Event, announced, listening

FIRST_ORDER = DATConfig(eps=4.0, second_order=False)


@pytest.fixture(autouse=True)
def only_traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch.compile traces a step and runs the traced graph as it is: seconds instead of minutes."""
    compile = torch.compile

    def traced(function: Any, *, options: dict[str, Any], **rest: Any) -> Any:
        return compile(
            function, backend="eager", options={"guard_filter_fn": options["guard_filter_fn"]}, **rest
        )

    monkeypatch.setattr(torch, "compile", traced)
    engines._ENGINES.clear()
    yield
    engines._ENGINES.clear()


@pytest.fixture
def events() -> Iterator[list[Event]]:
    heard: list[Event] = []
    with listening(heard.append):
        yield heard
    assert announce._LISTENERS == []


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    """Of the logger "fastdat". Those of caplog are a new list in each phase of a test."""
    caplog.set_level(logging.INFO, "fastdat")
    handler, logger = Kept(), logging.getLogger("fastdat")
    logger.addHandler(handler)
    yield handler.records
    logger.removeHandler(handler)


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
        self.gains = [1.0]

    def forward(self, x: Tensor, *args: Tensor) -> Tensor:
        result: Tensor = super().forward(x) * self.gains[0] + sum(arg.mean(1, keepdim=True) for arg in args)
        return result


def step(D: nn.Module, m: int = 6, args: int = 0, config: DATConfig = FIRST_ORDER, **settings: Any) -> None:
    further = [(torch.rand(m, 2),) * args for _ in range(2)]
    x = torch.rand(m, 4)
    fastdat.dat_step(D, x, x - 0.5, config, args_real=further[0], args_fake=further[1], **settings).backward()


def reasons(events: list[Event]) -> list[str]:
    return [event.reason for event in events if isinstance(event, CompilationStarted)]


def texts(records: list[logging.LogRecord]) -> list[tuple[str, str]]:
    """Level and text, without the seconds."""
    return [(r.levelname, r.getMessage().partition(" after ")[0]) for r in records]


def test_the_first_call_is_announced_and_a_repeated_one_is_not(
    events: list[Event], records: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    D = Net()
    step(D)
    started, ended = events
    assert started == CompilationStarted(
        "D's step", torch.Size((6, 4)), torch.float32, torch.device("cpu"), "first"
    )
    assert isinstance(ended, CompilationEnded)
    assert ended.succeeded
    assert 0 < ended.seconds < 60
    assert ended.what == "D's step"
    assert texts(records) == [
        ("INFO", "compiling D's step: (6, 4), torch.float32, cpu"),
        ("INFO", "D's step is ready"),
    ]
    for name in ("announced", "reason_for", "remember"):
        monkeypatch.setattr(prepared, name, None)  # a repeated call does not come there
    for _ in range(3):
        step(D)
    assert len(events) == 2
    assert len(records) == 2


@pytest.mark.parametrize("args", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_another_number_of_samples_is_a_warning(
    args: int, events: list[Event], records: list[logging.LogRecord]
) -> None:
    D = Net()
    step(D, 6, args)
    records.clear()
    step(D, 4, args)
    assert texts(records) == [
        (
            "WARNING",
            "D's step is compiled anew for 4 samples a side (before: 6), which may take as long as the first time. "
            "If it is the last, smaller batch of an epoch, drop it: DataLoader(drop_last=True).",
        ),
        ("INFO", "D's step is ready"),
    ]
    records.clear()
    for m in (6, 4, 6):  # the graphs are kept
        step(D, m, args)
    assert records == []
    step(D, 8, args)
    assert texts(records)[0] == (
        "WARNING",
        "D's step is compiled anew for 8 samples a side (before: 6, 4), which may take as long as the first time.",
    )
    assert reasons(events) == ["first", "samples", "samples"]


def test_another_strength_of_the_attack_is_a_warning(
    events: list[Event], records: list[logging.LogRecord]
) -> None:
    """A schedule of eps would compile in every step."""
    D = Net()
    step(D)
    records.clear()
    step(D, config=DATConfig(eps=0.9))
    level, text = texts(records)[0]
    assert level == "WARNING"
    assert text.startswith("D's step is compiled anew for other numbers in its config (eps, say)")
    step(D, config=DATConfig(real=False))  # a choice, and no number of a schedule
    assert reasons(events) == ["first", "numbers", "first"]


def test_an_equal_discriminator_shares_the_graph(
    events: list[Event], records: list[logging.LogRecord]
) -> None:
    step(Net())
    del events[:], records[:]
    other = Net()
    step(other)
    assert (events, records) == ([], [])
    step(other, 4)
    assert reasons(events) == ["samples"]
    step(Net(), 5)  # for this one it is no change
    assert reasons(events) == ["samples", "first"]


def test_a_graph_that_no_longer_fits(events: list[Event], records: list[logging.LogRecord]) -> None:
    D = Net()
    step(D)
    D.gains[0] = 2.0
    step(D)
    assert reasons(events) == ["first", "changed"]
    assert texts(records)[2] == (
        "INFO",
        "compiling D's step again, since no graph that was made before fits: (6, 4), torch.float32, cpu",
    )
    D.append(nn.ReLU())  # another step: that it is also of another size is not the only reason
    step(D, 4)
    assert reasons(events)[2:] == ["first"]


def test_parts_are_announced_and_their_repetition_is_not(events: list[Event]) -> None:
    D = Net()
    step(D, microbatch=4)
    assert set(reasons(events)) == {"first"}
    assert {event.what for event in events} == {"D's step in parts of 4"}
    before = len(events)
    step(D, microbatch=4)
    assert len(events) == before


def test_eager_steps_say_nothing(events: list[Event], records: list[logging.LogRecord]) -> None:
    D = Net()
    for m in (6, 4):
        step(D, m, compile=False)
    assert (events, records) == ([], [])


def test_a_compilation_that_fails_is_ended(events: list[Event], records: list[logging.LogRecord]) -> None:
    class Broken(Net):
        def forward(self, x: Tensor, *args: Tensor) -> Tensor:
            torch._dynamo.graph_break()
            return super().forward(x)

    with pytest.raises(RuntimeError, match="compiled into one graph"):
        step(Broken())
    assert [type(event) for event in events] == [CompilationStarted, CompilationEnded]
    assert not events[1].succeeded  # type: ignore[union-attr]
    assert texts(records)[-1] == ("INFO", "compiling D's step ended")
    assert callback_handler.start_callbacks == callback_handler.end_callbacks == []


def test_within_the_handling_of_an_error_a_compilation_succeeds(events: list[Event]) -> None:
    try:
        raise ValueError
    except ValueError:
        step(Net())
    assert events[1].succeeded  # type: ignore[union-attr]


def test_a_listener_that_fails_stops_nothing(records: list[logging.LogRecord], events: list[Event]) -> None:
    def broken(event: Event) -> None:
        raise OSError("no space left")

    with listening(broken):
        step(Net())
    assert [r.levelname for r in records].count("ERROR") == 2
    assert len(events) == 2


def test_other_compilations_are_not_announced(events: list[Event]) -> None:
    """Neither those of other threads, nor the user's own before and after."""

    def other(size: int) -> None:
        options = {"guard_filter_fn": lambda guards: [True for _ in guards]}
        torch.compile(lambda x: x + 1, dynamic=False, options=options)(torch.ones(size))

    other(1)
    with announced("mine", torch.ones(2)):
        thread = threading.Thread(target=other, args=(2,))
        thread.start()
        thread.join()
        assert events == []
        other(3)
    assert [event.what for event in events] == ["mine", "mine"]
    other(4)
    assert len(events) == 2
