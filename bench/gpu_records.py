"""What a run of pytest did, written down the moment it is known: a plugin that writes, and `read`.

    FASTDAT_GPU_RECORDS=FILE python -m pytest -p bench.gpu_records ...

Whatever ends the run, what it had finished stays known; pytest's own reports are written at the very end. A line of
FILE is one JSON object: the tests that were collected, or one phase of a test, a benchmark, a warning, an error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "FASTDAT_GPU_RECORDS"
LONGEST = 400
"""Characters of a message that are kept; the log has all of it."""


def pytest_configure(config: pytest.Config) -> None:
    path = os.environ.get(VARIABLE)
    # Of pytest-xdist's processes the first hears all the others.
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Writer(Path(path)))


class Writer:
    """The plugin."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._write(collected=[item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self._write(collected=list(ids))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(error=report.nodeid, message=_message(report))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        benchmark: Any = getattr(item, "funcargs", {}).get("benchmark")
        if call.when == "call" and getattr(benchmark, "stats", None):  # false until a round is over
            record = benchmark.stats.as_dict(include_data=True)
            record.pop("params", None)  # objects of ours, which the names and extra_info describe
            self._write(benchmark=record)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            outcome = "error" if report.failed and report.when != "call" else report.outcome
            message = "" if report.passed else _message(report)
            self._write(test=report.nodeid, outcome=outcome, seconds=report.duration, message=message)

    def pytest_warning_recorded(self, warning_message: Any, when: str, nodeid: str) -> None:
        text = str(warning_message.message).strip()
        self._write(warning=warning_message.category.__name__, message=text[:LONGEST], where=nodeid or when)

    def pytest_internalerror(self, excrepr: Any) -> None:
        self._write(error="pytest", message=str(excrepr).strip()[-LONGEST:])

    def _write(self, **record: Any) -> None:
        _append(self._path, record)


def note(**record: Any) -> None:
    """A record by a benchmark itself, where this plugin is at work: ``interim=...`` of what it knows before its end."""
    path = os.environ.get(VARIABLE)
    if path:
        _append(Path(path), record)


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record, default=str) + "\n")


def _message(report: pytest.TestReport | pytest.CollectReport) -> str:
    """What a report says at the place that failed, or why it was skipped."""
    told = report.longrepr
    if isinstance(told, tuple):  # file, line, reason of a skip
        text = str(told[2]).removeprefix("Skipped: ")
    else:
        crash = getattr(told, "reprcrash", None)
        text = str(told if crash is None else crash.message)
    return text.strip()[:LONGEST]


@dataclass
class Records:
    """What is known of a run that ended, however it did."""

    outcomes: dict[str, str] = field(default_factory=dict)
    """Test -> "passed", "failed", "error" or "skipped"."""
    seconds: dict[str, float] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    """Of tests that did not pass, and of errors outside of them."""
    errors: list[str] = field(default_factory=list)
    """Files that could not be collected; pytest itself."""
    not_reached: list[str] = field(default_factory=list)
    """Collected, and neither passed, failed nor skipped."""
    benchmarks: list[dict[str, Any]] = field(default_factory=list)
    """Where one did not come to its end, what it had noted: ``"interim": True``."""
    warnings: list[dict[str, Any]] = field(default_factory=list)
    """Each once: category, message, where it came first, and how often."""

    def counts(self) -> dict[str, int]:
        of = list(self.outcomes.values())
        failed = of.count("failed") + of.count("error") + len(self.errors)
        return {
            "passed": of.count("passed"),
            "failed": failed,
            "skipped": of.count("skipped"),
            "not_reached": len(self.not_reached),
        }


def read(path: Path) -> Records:
    """What the plugin wrote to ``path``; nothing where it wrote nothing."""
    records, collected, warned = Records(), dict[str, None](), dict[tuple[str, str], dict[str, Any]]()
    interim: dict[Any, dict[str, Any]] = {}
    for record in _lines(path):
        match record:
            case {"collected": ids}:
                collected |= dict.fromkeys(ids)
            case {"test": name, "outcome": outcome}:
                # A good teardown does not mend what failed before.
                if records.outcomes.get(name) not in ("failed", "error"):
                    records.outcomes[name] = outcome
                    records.messages[name] = record["message"]
                records.seconds[name] = records.seconds.get(name, 0.0) + record["seconds"]
            case {"benchmark": benchmark}:
                records.benchmarks.append(benchmark)
            case {"interim": benchmark}:
                interim[_subject(benchmark)] = {**benchmark, "interim": True}
            case {"warning": category, "message": message, "where": where}:
                of_kind = {"category": category, "message": message, "first": where, "count": 0}
                warned.setdefault((category, message), of_kind)["count"] += 1
            case {"error": name, "message": message}:
                records.errors.append(name)
                records.messages[name] = message
    ended = {_subject(benchmark) for benchmark in records.benchmarks}
    records.benchmarks += [benchmark for subject, benchmark in interim.items() if subject not in ended]
    records.not_reached = [name for name in collected if name not in records.outcomes]
    records.warnings = list(warned.values())
    return records


def _subject(benchmark: dict[str, Any]) -> tuple[Any, Any]:
    return benchmark.get("group"), benchmark.get("extra_info", {}).get("variant")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # cut off by the end of the process
            return
