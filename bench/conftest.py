"""Set-up of the benchmarks: an empty compile cache, what a result contains, and the tables at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from bench.compile_time import compile_parts
from bench.compile_time.compile_parts import FIRST_STEPS
from bench.host import host_parts
from bench.host.host_parts import HOST_COSTS
from bench.kernel import kernel_report
from bench.kernel.kernel_report import KERNELS
from bench.step import step_report
from bench.step.step_report import MEASUREMENTS
from fastdat.util import provenance
from tests.data_fixtures import cifar10_root  # noqa: F401  # a fixture
from tests.environment import use_cache_folder

# An empty folder, whatever the user's variables say, so that compile times are those of a first run.
_COMPILED = tempfile.TemporaryDirectory(prefix="fastdat-bench-")
use_cache_folder(Path(_COMPILED.name), always=True)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MEASUREMENTS] = []
    config.stash[KERNELS] = []
    config.stash[FIRST_STEPS] = []
    config.stash[HOST_COSTS] = []


def pytest_unconfigure() -> None:
    _COMPILED.cleanup()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("benchmark_only"):
        return
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.skip(reason="speed is measured by `pytest bench --benchmark-only`"))


@pytest.fixture(scope="session")
def cifar10_or_none(request: pytest.FixtureRequest) -> Path | None:
    """The folder of real CIFAR-10 that the tests use, or None."""
    try:
        root: Path = request.getfixturevalue("cifar10_root")
    except pytest.skip.Exception:
        return None
    return root


def pytest_benchmark_generate_machine_info() -> dict[str, Any]:
    return provenance.machine_info()


def pytest_benchmark_generate_commit_info() -> dict[str, Any]:
    return provenance.commit_info()


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    for benchmark in output_json["benchmarks"]:
        benchmark.pop("params", None)  # Python objects; the names and extra_info describe them


@pytest.hookimpl(trylast=True)  # below the tables of pytest-benchmark
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for measurement in config.stash[MEASUREMENTS]:
        terminalreporter.write_sep("=", "one step of the discriminator")
        for line in step_report.tables(measurement):
            terminalreporter.write_line(line)
    summaries: tuple[tuple[str, list[Any], Callable[[list[Any]], Iterable[str]]], ...] = (
        ("kernels", config.stash[KERNELS], kernel_report.tables),
        ("first step of a process", config.stash[FIRST_STEPS], compile_parts.tables),
        ("host time of a repeated call", config.stash[HOST_COSTS], host_parts.tables),
    )
    for title, found, tables in summaries:
        if found:
            terminalreporter.write_sep("=", title)
            for line in tables(found):
                terminalreporter.write_line(line)
