"""What is fitted to measurements of sizes, and the processes that measure."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from bench import bench_run_size
from bench.run_size import keep
from bench.run_size.cases import ON_CPU, ON_GPU, Case
from bench.run_size.worker import images_for
from fastdat.training import preset
from fastdat.training.measured_sizes import image_bytes


def test_the_package_ships_what_is_committed() -> None:
    """`python -m bench.run_size.keep` would change nothing, but for results of this machine that nobody has added."""
    listed = subprocess.run(
        ["git", "ls-files", "bench/results"], cwd=keep.REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    files = [keep.REPOSITORY / name for name in listed if name.count("/") == 2 and name.endswith(".json")]
    assert keep.SHIPPED.read_text() == keep.content(files)
    assert len(json.loads(keep.content(files))["measurements"]) >= 9


def test_the_newest_file_of_a_day_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first file of a day has no number, and the tenth is newer than the second."""
    settings = preset("sngan-dat-cifar10").to_dict()
    of_run = {"peak_reserved_bytes": 5, "settings": settings, "machine": {"device": "L4"}}
    ends = ["2026-12-01", "2026-12-01-2", "2026-12-01-10", "2026-11-30-11"]
    for seconds, end in enumerate(ends, 1):
        found = {"name": "bench_run_size[a]", "extra_info": of_run | {"seconds": seconds}}
        (tmp_path / f"l4-{end}.json").write_text(json.dumps({"benchmarks": [found]}))
    monkeypatch.setattr(keep, "RESULTS", tmp_path)

    def kept() -> float:
        (entry,) = json.loads(keep.content())["measurements"]
        return float(entry["seconds"])

    assert kept() == 3
    (tmp_path / f"l4-{ends[2]}.json").unlink()
    assert kept() == 2


def test_names_of_cases_differ() -> None:
    for cases in (ON_GPU, ON_CPU):
        assert len({case.name for case in cases}) == len(cases)
    assert Case("a", 3, {"dat.second_order": True}).name == "a batch=3 second_order=True"


def test_the_bytes_of_the_noise() -> None:
    for batch in (64, 3000):
        config = preset("sngan-dat-lsun-bedroom").replace({"batch_size": batch, "resolution": 32})
        assert images_for(config).images.numel() == image_bytes(config)


@pytest.mark.slow
def test_a_process_that_fails_says_why_and_leaves_nothing_open(tmp_path: Path) -> None:
    """An open pipe would be a ResourceWarning, which is an error here."""
    process = bench_run_size.Process(Case("no-such-preset", 4), tmp_path / "errors.txt")
    assert not process.ready(time.monotonic() + 60)
    text = process.wrong()
    assert text.startswith("exit status 1: ")
    assert "unknown preset 'no-such-preset'" in text


@pytest.mark.parametrize("ended", [False, True])
def test_a_process_that_is_killed(tmp_path: Path, ended: bool) -> None:
    process = bench_run_size.Process(ON_CPU[0], tmp_path / "errors.txt")
    assert not process.ready(0.0)
    process.kill()
    if ended:
        process.kill()
    assert process.wrong().startswith("exit status -9: ")
