"""Decoding processes: the same store without them, and none that outlives the packing process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastdat.data import Store
from tests.data.helpers import content, packed
from tests.environment import REPOSITORY

POOL = """
import multiprocessing, os, sys, time
from fastdat.data.packing.workers import DecodingPool
if __name__ == "__main__":
    with DecodingPool(2, 1) as pool:
        list(pool.map(abs, [1, 2]))
        print(*[process.pid for process in multiprocessing.active_children()], flush=True)
        time.sleep(60)
"""
UNGUARDED = """
import fastdat.data.packing.pieces
from fastdat.data import pack
fastdat.data.packing.pieces.PIECE_IMAGES = 8
pack("folder", {source!r}, {dest!r}, resolution=32, workers=1)
"""


def script(folder: Path, code: str) -> list[str]:
    """The command that runs ``code`` as a script: spawned processes import it again."""
    path = folder / "script.py"
    path.write_text(f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{code}")
    return [sys.executable, str(path)]


@pytest.mark.usefixtures("small_pieces")
def test_processes_change_nothing(pictures: Path, tmp_path: Path) -> None:
    (pictures / "train" / "a" / "013.png").write_bytes(b"no image")
    packed(pictures, tmp_path / "alone", workers=0)
    packed(pictures, tmp_path / "many", workers=2)
    assert content(tmp_path / "alone") == content(tmp_path / "many")
    assert Store(tmp_path / "many").index["splits"]["train"]["skipped"][0][0] == "a/013.png"


def test_processes_die_with_the_packing_process(tmp_path: Path) -> None:
    with subprocess.Popen(script(tmp_path, POOL), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        children = [int(pid) for pid in process.stdout.readline().split()]
        assert len(children) == 2
        assert all(Path(f"/proc/{pid}").exists() for pid in children)
        process.kill()
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in children):
        assert time.monotonic() < deadline, "they wait for work that will never come"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_script_without_a_guard_is_explained(pictures: Path, tmp_path: Path) -> None:
    code = UNGUARDED.format(source=str(pictures), dest=str(tmp_path / "store"))
    result = subprocess.run(script(tmp_path, code), capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert 'without `if __name__ == "__main__":`' in result.stderr.splitlines()[-1]
