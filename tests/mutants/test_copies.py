"""A copy holds what git would commit, links as links, and its compiled files go by the source's hash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import copies


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tree = tmp_path / "tree"
    for folder in ("fastdat", "kernels", "tests", "bench"):
        (tree / folder).mkdir(parents=True)
        (tree / folder / "rate.py").write_text(f"RATE = '{folder} 1'\n")
    (tree / "fastdat" / "__init__.py").touch()
    (tree / "fastdat" / "kernels").symlink_to("../kernels")
    (tree / ".gitignore").write_text("runs/\n")
    (tree / "runs").mkdir()
    (tree / "runs" / "weights.pt").write_text("heavy")
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    subprocess.run(["git", "add", "fastdat/rate.py"], cwd=tree, check=True)
    monkeypatch.setattr(copies, "REPOSITORY", tree)
    return tree


def test_what_is_copied(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "left_over.py").write_text("changed = True\n")
    copies.make_copy(copy)
    assert (copy / "fastdat" / "rate.py").read_text() == "RATE = 'fastdat 1'\n"
    assert (copy / "bench" / "rate.py").exists()  # not added to git yet
    assert (copy / "fastdat" / "kernels").readlink() == Path("../kernels")
    assert not (copy / "runs").exists()
    assert not (copy / "left_over.py").exists()


def test_a_change_within_the_same_second_is_seen(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copies.make_copy(copy)
    path = copy / "fastdat" / "rate.py"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_text(
        "RATE = 'fastdat 2'\n"
    )  # of equal length and time, which is all that Python looks at otherwise
    os.utime(path, ns=times)
    read = [sys.executable, "-c", "from fastdat.rate import RATE; print(RATE)"]
    said = subprocess.run(read, cwd=copy, capture_output=True, text=True, check=True).stdout
    assert said == "fastdat 2\n"
