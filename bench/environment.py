"""Where results of this machine go; `python -m bench.environment` prints it."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

from fastdat.provenance import device_name

RESULTS = Path("bench") / "results"


def results_path() -> Path:
    """bench/results/<device>-<date>.json"""
    name = re.sub(r"[^a-z0-9]+", "-", device_name().lower()).strip("-")
    return RESULTS / f"{name}-{datetime.date.today().isoformat()}.json"


if __name__ == "__main__":
    RESULTS.mkdir(exist_ok=True)
    print(results_path())
