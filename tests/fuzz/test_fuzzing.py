"""A small part of ``make fuzz``, and that it would notice what it looks for."""

from __future__ import annotations

import os
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import pool, structured
from tests.fuzz.pool import Kept
from tests.fuzz.readers import all_targets
from tests.fuzz.target import Fault, Tally, Target, arm_alarm, attempt

INPUTS = 30
"""Of each reader; ``make fuzz`` tries ten thousands."""


@pytest.fixture(autouse=True)
def quiet_alarm() -> Any:
    arm_alarm()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # readers warn of damage, and are used like that
        yield


@pytest.mark.parametrize("target", all_targets(), ids=lambda target: target.name)
def test_a_reader(target: Target, tmp_path: Path) -> None:
    target.prepare(tmp_path)
    pool.warm(target, tmp_path)
    tally = Tally()
    for number in range(INPUTS if "report" not in target.name else 3):
        fault = attempt(target, target.input(0, number), tmp_path, tally)
        assert fault is None, f"input {number}: {fault}"
    assert tally.accepted + tally.refused == tally.inputs


@pytest.mark.parametrize("target", all_targets(), ids=lambda target: target.name)
def test_good_files_are_read(target: Target, tmp_path: Path) -> None:
    """Or the fuzzing would only see the first check of a reader."""
    target.prepare(tmp_path)
    read = 0
    for content in target.good():
        try:
            target.read(content, tmp_path)
            read += 1
        except target.errors:
            pass
        target.tidy(tmp_path)
    assert read >= 1


def test_inputs_are_the_same_each_time() -> None:
    for target in all_targets():
        assert target.input(3, 17) == target.input(3, 17)
        assert len({target.input(0, number) for number in range(20)}) > 10


@pytest.mark.parametrize("name", structured.ALL)
def test_described_inputs(name: str) -> None:
    structured.tried(structured.ALL[name][0], 15)()


# --- readers with faults ---------------------------------------------------------------------------------------------


def with_fault(read: Any, **changes: Any) -> Target:
    return Target("faulty", lambda: [b"seed"], read, (ValueError,), 1, **changes)


def refuse(content: bytes, folder: Path) -> None:
    raise ValueError


def elsewhere(content: bytes, folder: Path) -> None:
    (folder.parent / "elsewhere").write_bytes(content)


def swallow(content: bytes, folder: Path) -> None:
    """Hides what it did behind the error that it may raise."""
    os.system("true")
    raise ValueError


def endless(content: bytes, folder: Path) -> None:
    while True:
        try:
            time.sleep(0.01)
        except Exception:  # does not catch the alarm
            continue


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (refuse, None),
        (lambda content, folder: (folder / "inside").write_bytes(content), None),
        (lambda content, folder: {}["missing"], "error"),
        (lambda content, folder: exit(3), "error"),
        (lambda content, folder: [0] * 10**14, "error"),
        (elsewhere, "executed"),
        (swallow, "executed"),
        (lambda content, folder: subprocess.run(["true"]), "executed"),
        (lambda content, folder: exec("1"), "executed"),
        (lambda content, folder: Path("/etc/hostname").open().close(), "executed"),
        (lambda content, folder: __import__("this_module_is_missing"), "executed"),
        (lambda content, folder: os.remove(folder.parent / "missing"), "executed"),
        (lambda content, folder: len(b"x" * (64 << 20)), "memory"),
        (endless, "time"),
    ],
)
def test_faults_are_noticed(read: Any, kind: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    tally = Tally()
    fault = attempt(with_fault(read, megabytes=32, seconds=0.5), b"x", folder, tally)
    assert (fault.kind if fault else None) == kind
    assert tally.faults == ([fault] if fault else [])


class Sends:
    """A worker whose process has sent these messages, and has then died."""

    def __init__(self, *messages: Any) -> None:
        self.messages = list(messages)
        self.connection, self.process = self, self
        self.exitcode, self.chunk = -9, ("faulty", 0, 10)

    def recv(self) -> Any:
        if not self.messages:
            raise EOFError
        return self.messages.pop(0)

    def join(self) -> None:
        pass


def test_faults_before_a_crash_are_counted(tmp_path: Path) -> None:
    worker: Any = Sends((3, b"x", Fault("error", "first")), (5, b"y", Fault("time", "second")))
    tally, target = Tally(), with_fault(refuse)
    received = [pool._receive(worker, tally, target, Kept(tmp_path / "kept")) for _ in range(3)]
    assert [fault and fault.kind for fault in received] == [None, None, "crash"]
    assert [fault.kind for fault in tally.faults] == ["error", "time"]
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_a_fault_is_counted_once(tmp_path: Path) -> None:
    """Whether the tally of the chunk follows or not."""
    tally, target, sent = Tally(), with_fault(elsewhere), []
    folder = tmp_path / "scratch"
    folder.mkdir()
    ours = pool.try_chunk(target, range(4), 0, folder, lambda number: None, sent.append)
    assert (ours.inputs, len(sent)) == (4, 4)
    worker: Any = Sends(*sent, ours)
    for _ in range(5):
        assert pool._receive(worker, tally, target, Kept(tmp_path / "kept")) is None
    assert (tally.inputs, len(tally.faults)) == (4, 4)
    assert worker.chunk is None


def test_a_reader_with_many_faults_is_not_tried_any_further() -> None:
    many = Tally(faults=[Fault("error", "")] * pool._MOST_FAULTS)
    chunks = [("a", 0, 5), ("b", 0, 5), ("a", 5, 9)]
    assert pool.worth_trying(chunks, {"a": many, "b": Tally(faults=many.faults[1:])}) == [("b", 0, 5)]


@pytest.mark.slow  # two processes import everything
def test_a_crash_is_counted_and_its_input_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pool.CRASH_AT, "3")
    tallies = pool.run({"sealed JSON": 6}, 0, 1, Kept(tmp_path / "kept"))
    tally = tallies["sealed JSON"]
    assert [fault.kind for fault in tally.faults] == ["crash"]
    assert "status -9" in tally.faults[0].text
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["sealed_json-3.bin"]
    assert tally.inputs == 3, (
        "the one that crashed and the two behind it; the tally of those before went with the process"
    )
