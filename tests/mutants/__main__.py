"""``make mutants``: change the code in one place at a time, and see whether its tests notice.

python -m tests.mutants --seed 21 --sample 320 --json build/mutants.json    a sample, about 30 minutes on two cores
python -m tests.mutants --all                                               every place; stop it and go on at will
python -m tests.mutants --only engine/microbatch --all                      one file
python -m tests.mutants --listed                                            the deliberate faults of the two lists
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from tests.environment import REPOSITORY
from tests.mutants import listed
from tests.mutants.equivalents import equivalent_ids
from tests.mutants.noticing import noticing_tests
from tests.mutants.places import sample
from tests.mutants.record import record, write
from tests.mutants.running import Outcome, failing_unchanged, run

FOLDER = REPOSITORY / ".mutants"


def main() -> int:
    """Returns the exit status: 1 if a change was not noticed."""
    given = _arguments()
    _unpack_images()
    if given.listed:
        return _listed(given)
    files = [file for file in noticing_tests() if given.only in file]
    if not files:
        sys.exit(f"no file of tests/mutants/noticing.toml holds {given.only!r} in its name")
    asked = None if given.all else given.sample
    drawn = sample(files, given.seed, asked)
    mutants = [mutant for mutant in drawn if mutant.id not in equivalent_ids()]
    print(
        f"{len(mutants)} mutants of {len(files)} files, {len(drawn) - len(mutants)} equivalent ones apart",
        flush=True,
    )
    start = time.monotonic()
    outcomes: list[Outcome] = []
    for outcome in run(mutants, FOLDER, given.jobs):
        outcomes.append(outcome)
        _tell(outcome, len(outcomes), len(mutants))
    unsound = failing_unchanged(outcomes, FOLDER)
    seconds = time.monotonic() - start
    made = record(outcomes, given.seed, asked, equivalents=len(drawn) - len(mutants), seconds=seconds)
    print(
        f"{made['killed']} of {made['mutants']} noticed ({made['share_killed']:.1%}) in {made['seconds']} s"
    )
    if unsound:
        print("these tests fail without a change, so the figure is worth nothing:", *unsound, sep="\n  ")
        return 1
    if given.json:
        write(given.json, made)
    return int(bool(made["survivors"]))


def _unpack_images() -> None:
    """Have the tests in all copies find the real images, which lie beside this tree and not beside the copies."""
    # Not above: it imports fastdat, of which a worker has another copy.
    from tests.data_fixtures import unpacked

    folder = unpacked(FOLDER / "data")
    if folder is not None:
        os.environ["FASTDAT_DATA"] = str(folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Mutation testing.")
    parser.add_argument("--seed", type=int, default=21, help="of the sample")
    parser.add_argument("--sample", type=int, default=320, help="how many places")
    parser.add_argument("--all", action="store_true", help="every place")
    parser.add_argument("--only", default="", help="part of the names of the files to change")
    parser.add_argument(
        "--listed", action="store_true", help="the faults that are written down, in place of a sample"
    )
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    parser.add_argument("--json", type=Path, help="where the result is written")
    return parser.parse_args()


def _listed(given: argparse.Namespace) -> int:
    chosen = [
        fault for listing in listed.LISTS for fault in listed.faults(listing) if given.only in fault.file
    ]
    missed = listed.unnoticed(chosen, FOLDER, given.jobs)
    print(f"{len(chosen) - len(missed)} of {len(chosen)} deliberate faults noticed")
    for fault, said in missed.items():
        print(f"  {fault.name} ({fault.file}): {fault.test} does not fail with it: {said}")
    return int(bool(missed))


def _tell(outcome: Outcome, done: int, total: int) -> None:
    mutant = outcome.mutant
    if outcome.by is None:
        old, new = mutant.change()
        print(
            f"{done}/{total} SURVIVED {mutant.id} {mutant.file}:{mutant.line}\n    - {old}\n    + {new}",
            flush=True,
        )
    else:
        print(f"{done}/{total} noticed {mutant.id} {mutant.file}:{mutant.line} by {outcome.by}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
