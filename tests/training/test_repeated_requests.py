"""A request to stop that comes twice: once to each process of a job, and once more from torchrun."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from fastdat.training import stop
from fastdat.training.stop import SAME_REQUEST, StopRequests
from tests.training.test_stop import STARTED


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The time that stop requests see, which stands still; and handlers that Python does not ignore."""
    now = SimpleNamespace(time=100.0)
    monkeypatch.setattr(stop, "time", SimpleNamespace(monotonic=lambda: now.time))
    before = {number: signal.signal(number, signal.SIG_DFL) for number in stop.SIGNALS}
    yield now
    for number, handler in before.items():
        signal.signal(number, handler)


def interrupts(number: signal.Signals) -> bool:
    """Whether the signal interrupts what is done now."""
    try:
        os.kill(os.getpid(), number)
    except KeyboardInterrupt:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_repetition_is_the_same_request(
    number: signal.Signals, clock: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    with StopRequests() as requests:
        assert not interrupts(number)
        clock.time += SAME_REQUEST - 0.1
        assert not interrupts(number)
        assert requests.requested is number
        clock.time += 0.2
        assert interrupts(number)
    assert capfd.readouterr().err.count("stopping after this step") == 1


def test_a_request_to_another_rank_is_the_same_one(clock: SimpleNamespace) -> None:
    with StopRequests() as requests:
        requests.join([None, signal.SIGTERM])
        assert not interrupts(signal.SIGTERM)
        assert requests.requested is signal.SIGTERM


def test_what_is_another_request(clock: SimpleNamespace) -> None:
    """Ctrl-C by hand, another signal, and one more while a step is compiled, as the watcher sends it."""
    with StopRequests():
        assert [interrupts(signal.SIGINT) for _ in range(2)] == [False, True]
    with StopRequests():
        assert [interrupts(number) for number in (signal.SIGTERM, signal.SIGHUP)] == [False, True]
    with StopRequests() as requests:
        requests._hear(STARTED)
        assert [interrupts(signal.SIGTERM) for _ in range(2)] == [True, True]
