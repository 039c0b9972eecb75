"""One process at a time trains in a run folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from fastdat.training import RunFolderError
from fastdat.training.run_folder import RunFolder


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(RunFolderError, match=r"another process, .* is training in"):
        RunFolder(tmp_path)
    folder.close()
    RunFolder(tmp_path).close()


def test_closing_unlocks_while_a_forked_process_lives(tmp_path: Path) -> None:
    """A DataLoader's workers are forked and inherit every open file of their parent."""
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"another process, .* is training"):
        RunFolder(tmp_path / "run")
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads: the child does nothing
        child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # until the parent is done
        os._exit(0)
    try:
        folder.close()
        RunFolder(tmp_path / "run").close()
    finally:
        os.close(write)
        os.close(read)
        os.waitpid(child, 0)


def test_a_kill_unlocks_while_a_forked_process_lives(tmp_path: Path) -> None:
    """A DataLoader's workers notice only after seconds that their parent was killed."""
    code = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from fastdat.training.run_folder import RunFolder
folder = RunFolder({str(tmp_path / "run")!r})
if os.fork():
    time.sleep(60)
print(os.getpid(), flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            with pytest.raises(RunFolderError, match=r"another process, .* is training"):
                RunFolder(tmp_path / "run")
            process.kill()
            process.wait()
            RunFolder(tmp_path / "run").close()
        finally:
            os.kill(child, signal.SIGKILL)
