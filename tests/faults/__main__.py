"""Runs the fault campaigns and writes what came out as JSON: ``python -m tests.faults --json FILE``.

Starts itself once more with the fault injector in place (see injector.py).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults import injector, page


def main() -> int:
    options = _options()
    if "FASTDAT_TESTS_INJECTOR" not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            return _with_injector(Path(folder))
    found = _run(options)
    losses = sum(len(result["losses"]) for result in found.values())
    for name, result in found.items():
        for loss in result["losses"][:10]:
            print(f"LOSS, {name}: {loss}", flush=True)
    if options.json is not None:
        _write(options.json, found, losses)
    if len(found) == len(SHARES):
        print("For docs/faults.md:", *page.rows(found), sep="\n")
    return int(losses > 0)


#: Share of the time of each campaign.
SHARES = {"kills": 0.35, "full disk": 0.2, "damage": 0.1, "rank kills": 0.15, "torchrun": 0.2}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="kills at random moments")
    parser.add_argument("--damages", type=int, default=200, help="damaged checkpoints")
    parser.add_argument("--runs", type=int, default=10, help="runs of several ranks that are killed")
    parser.add_argument("--stride", type=int, default=2, help="every so many of a run's calls meets a fault")
    parser.add_argument("--seconds", type=float, default=780, help="no round begins afterwards")
    parser.add_argument("--only", choices=list(SHARES), action="append", help="leaves the others out")
    parser.add_argument("--json", type=Path, help="where to write what came out")
    options = parser.parse_args()
    if options.only and _is_whole(options.json):
        parser.error(
            f"{options.json} holds all campaigns, and --only leaves some out: give another file, or remove this one"
        )
    return options


def _is_whole(path: Path | None) -> bool:
    """Whether there is the JSON of all campaigns, which a part must not replace."""
    return path is not None and path.exists() and set(SHARES) <= set(json.loads(path.read_text()))


def _with_injector(folder: Path) -> int:
    command = [sys.executable, "-m", "tests.faults", *sys.argv[1:]]
    child = os.spawnve(os.P_WAIT, sys.executable, command, injector.environment(folder))
    return int(child)


def _run(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    from tests.faults import damage, full_disk, kills, rank_kills, torchrun

    faults = injector.Injector()
    campaigns: dict[str, Callable[[Path, float], Any]] = {
        "kills": lambda folder, until: kills.campaign(folder, faults, options.kills, options.stride, until),
        "full disk": lambda folder, until: full_disk.campaign(folder, faults, options.stride, until),
        "damage": lambda folder, until: damage.campaign(folder, options.damages, until),
        "rank kills": lambda folder, until: rank_kills.campaign(folder, options.runs, until),
        "torchrun": torchrun.campaign,
    }
    found, chosen = {}, options.only or list(SHARES)
    whole = sum(SHARES[name] for name in chosen)
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            begun = time.monotonic()
            until = begun + options.seconds * SHARES[name] / whole
            found[name] = asdict(campaigns[name](Path(folder), until))
            found[name]["seconds"] = round(time.monotonic() - begun, 1)
            print(f"{name}: {_in_words(found[name])}", flush=True)
    return found


def _in_words(result: dict[str, Any]) -> str:
    """``rounds 200, losses 0``"""
    counts = {**result, "losses": len(result["losses"])}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in counts.items())


def _write(path: Path, found: dict[str, dict[str, Any]], losses: int) -> None:
    from fastdat.util.provenance import commit_info, machine_info

    made = {"machine": machine_info(), "commit": commit_info(), "losses": losses}
    path.write_text(json.dumps(made | found, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
