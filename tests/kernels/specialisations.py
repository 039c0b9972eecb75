"""Compiles for sm_90, without a GPU, all that the tests of kernels launch: ``python -m tests.kernels.specialisations``.

The tests run in Triton's interpreter, which compiles nothing: a kernel may pass there and be refused on a GPU. So their
launches are noted (``recording``), and each is given to Triton as on a GPU, which makes signature, constants and
alignment of it and compiles. ``fastdat.kernels.offline`` compiles what the training launches instead.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from fastdat.kernels.dispatch import INTERPRETED
from fastdat.kernels.offline import Resources, resources_of
from tests.environment import REPOSITORY, use_cache_folder
from tests.kernels.recording import Launch

ARCH = 90
"""Compute capability: H100."""


class CompilingDriver:
    """In the place of Triton's driver: says which GPU to compile for, and cannot launch."""

    numbers = itertools.count(-1, -1)

    def __init__(self) -> None:
        # A kernel keeps what was compiled for a device by its number: a new one, and that of no GPU.
        self.device = next(self.numbers)

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", ARCH, 32)

    def get_current_device(self) -> int:
        return self.device

    def get_current_stream(self, device: int) -> int:
        return 0


def use_compiling_driver() -> None:
    from triton.runtime import driver

    driver.set_active(CompilingDriver())


def record_tests() -> list[Launch]:
    """The distinct launches of the tests of kernels, which run in the interpreter in a process of their own.

    Raises:
        SystemExit: where a test fails, or nothing is launched.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "launches"
        command = [sys.executable, "-m", "pytest", "tests/kernels", "-x", "-q"]
        outcome = subprocess.run(
            [*command, "-p", "tests.kernels.recording", f"--launches={file}"],
            cwd=REPOSITORY, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True,
        )  # fmt: skip
        if outcome.returncode != 0:
            sys.exit(
                f"{outcome.stdout}{outcome.stderr}\nerror: `TRITON_INTERPRET=1 {' '.join(command)}` failed (status "
                f"{outcome.returncode}, output above): its launches are not known"
            )
        launches: list[Launch] = pickle.loads(file.read_bytes())
    if not launches:
        sys.exit(
            f"{outcome.stdout}\nerror: the tests of kernels launched no kernel; is FASTDAT_TRITON set to 0?"
        )
    return launches


def _bind(launch: Launch) -> Any:
    """What Triton compiles for ``launch``, or found in its cache."""
    kernel = getattr(import_module(launch.module), launch.kernel)
    return kernel.run(*launch.arguments, grid=(1,), warmup=True, **dict(launch.options))


def specialisation(launch: Launch) -> tuple[str, str, str]:
    """Module, kernel, and Triton's key of what it would compile for ``launch``, which it has not compiled yet."""
    from triton import knobs

    keys: list[str] = []

    def note(*, key: str, **_: Any) -> bool:
        keys.append(key)
        return True  # and do not compile

    with knobs.runtime.scope():
        knobs.runtime.jit_cache_hook = note
        _bind(launch)
    (key,) = keys
    return launch.module, launch.kernel, key


def distinct(launches: Iterable[Launch]) -> list[Launch]:
    """The first launch of each specialisation."""
    found: dict[tuple[str, str, str], Launch] = {}
    for launch in launches:
        found.setdefault(specialisation(launch), launch)
    return list(found.values())


def compile_launch(launch: Launch) -> Resources | str:
    """What the specialisation of ``launch`` takes of a GPU, or why it does not compile."""
    try:
        return resources_of(_bind(launch), ARCH)
    except Exception as error:  # of any kind: Triton's passes, LLVM and ptxas each have their own
        return f"{type(error).__name__}: {error}"


def report(launches: Sequence[Launch], outcomes: Sequence[Resources | str]) -> int:
    """Print a table of the kernels and what went wrong. Returns 1 where a specialisation does not compile."""
    results: dict[str, list[Resources]] = {launch.kernel: [] for launch in launches}
    failures, spilling = [], []
    for launch, outcome in zip(launches, outcomes, strict=True):
        if isinstance(outcome, str):
            failures.append(f"{launch} does not compile:\n{outcome}\n")
            continue
        results[launch.kernel].append(outcome)
        if outcome.spills:
            spilling.append(f"{launch} spills: {outcome}")
    row = "{:<32}{:>16}{:>16}{:>10}"
    print(row.format("kernel", "specialisations", "most registers", "spilling"))
    for kernel, found in sorted(results.items()):
        most = max((each.registers for each in found), default=0)
        print(row.format(kernel, len(found), most, sum(each.spills for each in found)))
    for line in (*spilling, *failures):
        print(line)
    if failures:
        print(f"error: {len(failures)} of {len(launches)} specialisations do not compile for sm_{ARCH}")
        return 1
    spills = f"{len(spilling)} of them spilling" if spilling else "none spills"
    print(f"{len(launches)} specialisations that tests/kernels launches compile for sm_{ARCH}; {spills}")
    return 0


def main() -> int:
    """Returns 1 where the tests fail or a specialisation does not compile."""
    if INTERPRETED:
        sys.exit("error: TRITON_INTERPRET is set, so kernels are not compilable objects: unset it")
    use_cache_folder()
    print("Running tests/kernels in Triton's interpreter (minutes) ...", flush=True)
    launches = record_tests()
    use_compiling_driver()
    chosen = distinct(launches)
    print(
        f"tests/kernels makes {len(launches)} distinct launches, of {len(chosen)} specialisations", flush=True
    )
    # spawned, not forked: torch has threads
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        len(os.sched_getaffinity(0)), mp_context=context, initializer=use_compiling_driver
    ) as pool:
        outcomes = list(pool.map(compile_launch, chosen))
    return report(chosen, outcomes)


if __name__ == "__main__":
    sys.exit(main())
