"""pytest in a fork: its status and words come back, and nothing of it outlives its time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.mutants import forked

TESTS = """\
import os, subprocess, sys, time

def test_passes():
    assert os.environ["ANSWER"] == "42"

def test_imports():
    import fastdat.losses
    assert fastdat.losses.__file__ == os.path.abspath("fastdat/losses.py")

def test_fails():
    print("these words", file=sys.stderr)
    assert 1 == 2

def test_hangs():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    open("child", "w").write(str(child.pid))
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(test: str, timeout: float = 60.0) -> tuple[int | None, str]:
    return forked.run_in_fork(
        ["-q", "-p", "no:cacheprovider", f"test_it.py::{test}"], {"ANSWER": "42"}, timeout
    )


def test_status_and_output() -> None:
    assert run("test_passes")[0] == 0
    assert "ANSWER" not in os.environ
    status, output = run("test_fails")
    assert status == 1
    assert "these words" in output
    assert "FAILED test_it.py::test_fails" in output


def test_modules_are_those_of_the_folder(folder: Path) -> None:
    import fastdat.losses

    assert fastdat.losses.__file__
    (folder / "fastdat").mkdir()
    (folder / "fastdat" / "__init__.py").touch()
    (folder / "fastdat" / "losses.py").touch()
    assert run("test_imports")[0] == 0


@pytest.mark.slow
def test_a_hanging_test_and_its_children_end(folder: Path) -> None:
    start = time.monotonic()
    status, _ = run("test_hangs", timeout=3.0)
    assert status is None
    assert time.monotonic() - start < 20
    child = int((folder / "child").read_text())
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("a process that a test started is still there")
