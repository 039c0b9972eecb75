"""A pytest plugin that records each event of a run at once, and `read`, which reads the records.

    FASTDAT_GPU_RECORDS=FILE python -m pytest -p bench.gpu_check.records ...

The records survive whatever ends the run, while pytest writes its own reports at the very end. Each line of FILE is one
JSON object: the collected tests, one phase of a test, a benchmark, a warning, or an error.
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
"""Characters of a message that are kept; the log has the whole message."""


def pytest_configure(config: pytest.Config) -> None:
    path = os.environ.get(VARIABLE)
    # Under pytest-xdist the first process gets the reports of all the others.
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Writer(Path(path)))


class Writer:
    """The plugin: each method appends a record."""

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
        if call.when == "call" and getattr(benchmark, "stats", None):  # empty until the first round is over
            record = benchmark.stats.as_dict(include_data=True)
            record.pop("params", None)  # Python objects; the names and extra_info describe them
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
    """Append a record from inside a benchmark, if the plugin is active: ``interim=...`` is what it knows so far."""
    path = os.environ.get(VARIABLE)
    if path:
        _append(Path(path), record)


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record, default=str) + "\n")


def _message(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The message of a failure, or the reason of a skip."""
    report_text = report.longrepr
    if isinstance(report_text, tuple):  # file, line, reason of a skip
        text = str(report_text[2]).removeprefix("Skipped: ")
    else:
        crash = getattr(report_text, "reprcrash", None)
        text = str(report_text if crash is None else crash.message)
    return text.strip()[:LONGEST]


@dataclass
class Records:
    """Everything known about a run, however it ended."""

    outcomes: dict[str, str] = field(default_factory=dict)
    """Test -> "passed", "failed", "error" or "skipped"."""
    seconds: dict[str, float] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    """Messages of tests that did not pass, and of errors outside of tests."""
    errors: list[str] = field(default_factory=list)
    """Files that could not be collected, and "pytest" for an internal error."""
    not_reached: list[str] = field(default_factory=list)
    """Tests that were collected and have no outcome."""
    benchmarks: list[dict[str, Any]] = field(default_factory=list)
    """pytest-benchmark's records; of a benchmark that did not end, its last note with ``"interim": True``."""
    warnings: list[dict[str, Any]] = field(default_factory=list)
    """Each different warning once: category, message, place of the first one, and count."""

    def counts(self) -> dict[str, int]:
        outcomes = list(self.outcomes.values())
        failed = outcomes.count("failed") + outcomes.count("error") + len(self.errors)
        return {
            "passed": outcomes.count("passed"),
            "failed": failed,
            "skipped": outcomes.count("skipped"),
            "not_reached": len(self.not_reached),
        }


def read(path: Path) -> Records:
    """The records that the plugin wrote to ``path``; empty ones if there is no such file."""
    records, collected, warned = Records(), dict[str, None](), dict[tuple[str, str], dict[str, Any]]()
    interim: dict[Any, dict[str, Any]] = {}
    for record in _lines(path):
        match record:
            case {"collected": ids}:
                collected |= dict.fromkeys(ids)
            case {"test": name, "outcome": outcome}:
                # A passed teardown does not hide an earlier failure of the test.
                if records.outcomes.get(name) not in ("failed", "error"):
                    records.outcomes[name] = outcome
                    records.messages[name] = record["message"]
                records.seconds[name] = records.seconds.get(name, 0.0) + record["seconds"]
            case {"benchmark": benchmark}:
                records.benchmarks.append(benchmark)
            case {"interim": benchmark}:
                interim[_subject(benchmark)] = {**benchmark, "interim": True}
            case {"warning": category, "message": message, "where": where}:
                first = {"category": category, "message": message, "first": where, "count": 0}
                warned.setdefault((category, message), first)["count"] += 1
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
        except json.JSONDecodeError:  # the end of the process cut it off
            return
