"""Copies of the tree in which code is changed: one a process, so that the tree itself is never touched."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.environment import REPOSITORY


def make_copy(folder: Path) -> None:
    """Put all files that git does not ignore into `folder`, compiled, in place of what was there.

    Compiled files are checked by the hash of their source: two changes of one second would look alike otherwise, and
    every test run would compile the whole tree.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name in _tracked():
        source, target = REPOSITORY / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.exists():
            shutil.copy2(source, target)
    compile_all = (sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash")
    subprocess.run([*compile_all, "fastdat", "kernels", "tests", "bench"], cwd=folder, check=True)


def _tracked() -> list[str]:
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split("\0") if name]
