"""A few rounds of each fault campaign; `make test-faults` does many."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.environment import REPOSITORY
from tests.faults import torchrun
from tests.faults.page import rows
from tests.training.runs import latest


def found(name: str, folder: Path, *options: str) -> dict[str, Any]:
    """What came out of a short campaign, without losses."""
    out = folder / "faults.json"
    command = [sys.executable, "-m", "tests.faults", "--only", name, "--json", str(out), *options]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=500)
    assert out.exists(), ended.stdout + ended.stderr
    result: dict[str, Any] = json.loads(out.read_text())[name]
    assert result["losses"] == []
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return result


@pytest.mark.slow
def test_kills_lose_nothing(tmp_path: Path) -> None:
    """At some changes of a run's files, many inside the write of a checkpoint, and at random moments."""
    result = found("kills", tmp_path, "--kills", "3", "--stride", "41")
    assert result["rounds"] >= 8
    assert result["inside_a_checkpoint_write"] >= 2
    assert result["runs"] >= 5


@pytest.mark.slow
def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    result = found("full disk", tmp_path, "--stride", "43")
    assert sum(result["faults"].values()) >= 8
    assert result["stopped"] >= 4


@pytest.mark.slow
def test_damaged_checkpoints_are_passed_over(tmp_path: Path) -> None:
    result = found("damage", tmp_path, "--damages", "6")
    assert sum(result["rounds"].values()) == 6
    assert set(result["used"]) == {"of step 6 instead of 9", "of step 3 instead of 9"}


@pytest.mark.slow
def test_killed_ranks_lose_nothing(tmp_path: Path) -> None:
    """The run is finished on another number of ranks; and NaN on one rank alone stops, or takes back, all."""
    result = found("rank kills", tmp_path, "--runs", "2")
    assert result["runs"] == 2
    assert sum(result["rounds"].values()) >= 1
    assert result["nan_rounds"] == 2
    assert result["largest_difference"] < 1e-5


def test_a_screen_that_takes_nothing_more_ends_no_run(tmp_path: Path) -> None:
    """For example a log file of the scheduler, on a full disk."""
    short = ["--steps", "12", "--set", "checkpoints.every=6"]
    with Path("/dev/full").open("w") as full:
        command = torchrun.command(tmp_path / "run", 1, 0, *short)
        ended = subprocess.run(command, stdout=full, cwd=REPOSITORY, timeout=300)
    assert ended.returncode == 0
    assert latest(tmp_path / "run")["step"] == 12


def test_the_page_names_tests_that_exist() -> None:
    page = (REPOSITORY / "docs" / "faults.md").read_text()
    rows = re.findall(r"\| ([\w/]+\.py): `(test_\w+)` \|$", page, re.MULTILINE)
    assert len(rows) > 25
    for file, name in rows:
        assert f"def {name}(" in (REPOSITORY / "tests" / file).read_text(), f"{file}: {name}"


def test_the_page_has_the_numbers_of_the_measurement() -> None:
    measured = json.loads((REPOSITORY / "bench" / "results" / "faults.json").read_text())
    page = (REPOSITORY / "docs" / "faults.md").read_text()
    for row in rows(measured):
        assert row in page.splitlines()
    assert f"{measured['rank kills']['largest_difference']:.0e}" in page


@pytest.fixture(scope="module")
def of_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process computes."""
    return torchrun.unbroken(tmp_path_factory.mktemp("one"))


@pytest.mark.slow
def test_torchrun_starts_a_killed_rank_again(of_one: dict[str, Any], tmp_path: Path) -> None:
    assert torchrun.restart(tmp_path / "run", of_one) == []


@pytest.mark.slow
def test_sigterm_to_torchrun_ends_all_ranks_with_a_checkpoint(of_one: dict[str, Any], tmp_path: Path) -> None:
    assert torchrun.asked_to_stop(tmp_path / "run", of_one) == []


@pytest.mark.slow
def test_a_rank_that_hangs_is_named(of_one: dict[str, Any], tmp_path: Path) -> None:
    assert torchrun.hang(tmp_path / "run", of_one) == []
