"""The file for a result of this machine; `python -m bench.environment` prints its path."""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from fastdat.util.provenance import device_name

RESULTS = Path("bench") / "results"


def results_path() -> Path:
    """bench/results/<device>-<date>.json"""
    name = re.sub(r"[^a-z0-9]+", "-", device_name().lower()).strip("-")
    return RESULTS / f"{name}-{datetime.date.today().isoformat()}.json"


def paths() -> Iterator[Path]:
    """`results_path()`, then the same path with -2, -3, ... at the end of the name."""
    path = results_path()
    yield path
    yield from (path.with_stem(f"{path.stem}-{i}") for i in itertools.count(2))


def unused_path() -> Path:
    """The first of `paths()` that does not exist yet."""
    return next(path for path in paths() if not path.exists())


if __name__ == "__main__":
    RESULTS.mkdir(exist_ok=True)
    print(unused_path())
