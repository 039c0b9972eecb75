"""Writes what `fastdat plan` is fitted to from the committed results: fastdat/training/measured_sizes.json.

python -m bench.run_size.keep
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path

from fastdat.training import measured_sizes
from fastdat.util.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "bench" / "results"
SHIPPED = REPOSITORY / "fastdat" / "training" / measured_sizes.SHIPPED


def content(files: Iterable[Path] | None = None) -> str:
    """The JSON: of each device the newest of ``files`` that has measurements of sizes; None: all in RESULTS."""
    newest: dict[str, list[measured_sizes.Measured]] = {}
    for path in sorted(RESULTS.glob("*.json") if files is None else files, key=_when):
        try:
            found = measured_sizes.read_results(path)
        except ConfigError:  # a file of other results
            continue
        if any(m.held is not None for m in found):
            newest |= dict.fromkeys(measured_sizes.devices(found), found)
    entries = [dataclasses.asdict(m) for found in newest.values() for m in found]
    origin = "bench/results, by python -m bench.run_size.keep"
    return json.dumps({"from": origin, "measurements": entries}, indent=1) + "\n"


def _when(path: Path) -> tuple[str, int, str]:
    """Date and number of a file of results: x-2026-12-01.json is the first of its day, x-2026-12-01-2.json the next."""
    found = re.search(r"(\d{4}-\d\d-\d\d)(?:-(\d+))?$", path.stem)
    return (found[1], int(found[2] or 1), path.name) if found else ("", 0, path.name)


if __name__ == "__main__":
    SHIPPED.write_text(content())
