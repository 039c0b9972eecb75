"""Where results of this machine go; `python -m bench.environment` prints it."""

from __future__ import annotations

import datetime
import itertools
import re
from pathlib import Path

from fastdat.provenance import device_name

RESULTS = Path("bench") / "results"


def results_path() -> Path:
    """bench/results/<device>-<date>.json"""
    name = re.sub(r"[^a-z0-9]+", "-", device_name().lower()).strip("-")
    return RESULTS / f"{name}-{datetime.date.today().isoformat()}.json"


def unused_path() -> Path:
    """That, or with -2, -3 ... in its name where an earlier result of the day has it."""
    path = results_path()
    names = (path.with_stem(f"{path.stem}-{i}") for i in itertools.count(2))
    return next(p for p in itertools.chain([path], names) if not p.exists())


if __name__ == "__main__":
    RESULTS.mkdir(exist_ok=True)
    print(unused_path())
