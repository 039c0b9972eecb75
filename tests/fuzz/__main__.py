"""``make fuzz``: feed every reader with changed files, in one process a core, and count what happens.

    python -m tests.fuzz --json build/fuzz.json         everything, and the counts into a JSON
    python -m tests.fuzz --only pickle --inputs 1000    the readers whose names hold "pickle", 1,000 inputs each
    python -m tests.fuzz --repeat .fuzz/tar-17.bin      one input that was kept

The inputs follow from the seed alone, whatever the number of processes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.fuzz import structured
from tests.fuzz.pool import Kept, run
from tests.fuzz.readers import all_targets
from tests.fuzz.target import Tally, arm_alarm, attempt

KEPT = Path(".fuzz")


def main() -> int:
    """Returns the exit status: 1 if an input was not answered as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz every reader of files.")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("FUZZ_SEED", 0)), help="of all inputs")
    parser.add_argument("--inputs", type=int, help="of each reader; its own number unless given")
    parser.add_argument("--only", default="", help="part of the names of the readers")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    parser.add_argument("--json", type=Path, help="where the counts are written")
    parser.add_argument("--repeat", type=Path, help="a kept input, which is read once more")
    given = parser.parse_args()
    targets = [target for target in all_targets() if given.only in target.name]
    if given.repeat:
        return _repeat(given.repeat)
    if not targets:
        parser.error(
            f"no reader is called {given.only!r}; there are: {', '.join(t.name for t in all_targets())}"
        )
    start = time.monotonic()
    kept = Kept(KEPT)
    work = {target.name: target.inputs if given.inputs is None else given.inputs for target in targets}
    tallies = run(work, given.seed, given.workers, kept)
    described = structured.run_all(given.seed) if not given.only and given.inputs is None else {}
    seconds = time.monotonic() - start
    record = _record(tallies, described, given.seed, seconds)
    for name, tally in tallies.items():
        print(
            f"{name:34} {tally.inputs:9,} inputs {tally.accepted:9,} read {tally.refused:9,} refused "
            f"{len(tally.faults):3} faults   slowest {tally.slowest:.2f} s, most {tally.megabytes} MiB"
        )
    for name, count in described.items():
        print(f"{name:34} {count:9,} inputs described by hypothesis")
    print(
        f"{record['inputs']:,} inputs in {seconds:.0f} s with seed {given.seed}: {record['crashes']} crashes, "
        f"{record['executed']} with code executed, {record['faults']} faults in all"
    )
    if given.json:
        given.json.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if record["faults"] else 0


def _record(
    tallies: dict[str, Tally], described: dict[str, int], seed: int, seconds: float
) -> dict[str, Any]:
    from fastdat.util.provenance import commit_info, machine_info

    faults = [fault for tally in tallies.values() for fault in tally.faults]
    return {
        "machine": machine_info(),
        "commit": commit_info(),
        "seed": seed,
        "seconds": round(seconds, 1),
        "inputs": sum(tally.inputs for tally in tallies.values()) + sum(described.values()),
        "faults": len(faults),
        "crashes": sum(fault.kind in ("crash", "hang") for fault in faults),
        "executed": sum(fault.kind == "executed" for fault in faults),
        "readers": {
            name: {
                "inputs": tally.inputs,
                "read": tally.accepted,
                "refused": tally.refused,
                "faults": len(tally.faults),
                "slowest_seconds": round(tally.slowest, 3),
                "most_mebibytes": tally.megabytes,
            }
            for name, tally in tallies.items()
        },
        "hypothesis": described,
    }


def _repeat(file: Path) -> int:
    """Read a kept input once more; prints what happens."""
    name = file.name.rpartition("-")[0]
    found = [target for target in all_targets() if Kept.file_name(target.name) == name]
    if not found:
        print(f"error: no reader is called {name!r}", file=sys.stderr)
        return 2
    arm_alarm()
    with tempfile.TemporaryDirectory() as scratch:
        tally = Tally()
        found[0].prepare(Path(scratch))
        fault = attempt(found[0], file.read_bytes(), Path(scratch), tally)
    print(f"{fault.kind}: {fault.text}" if fault else "read" if tally.accepted else "refused, as it must be")
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
