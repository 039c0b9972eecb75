"""GPU tests and benchmarks in parts, with the torch, triton and pytest of this Python.

    python -m bench.gpu_check [PART ...]        # make gpu-check PART="smoke step64"; without PART, all of them

It installs nothing and needs no network. Each part ends within its time limit. Its findings are then written to
bench/results/<gpu>-<date>.json, beside those of earlier parts, and its output is appended to the .log beside the JSON.
The environment variable OUT names a folder that gets both, too; FASTDAT_COMMIT names the commit of a tree without
history. The exit status is 0 when all parts passed, 1 when one did not, and 2 for an unknown part.
"""

from __future__ import annotations

import argparse
import sys

try:
    import torch
except ModuleNotFoundError:
    sys.exit(
        f"gpu-check: {sys.executable} has no torch, and gpu-check installs nothing. Name a Python that has torch: "
        "make gpu-check PYTHON=.venv/bin/python"
    )

from bench.gpu_check.parts import all_parts
from bench.gpu_check.process import interruptible, run_part
from bench.gpu_check.result import Result


def main(arguments: list[str] | None = None) -> int:
    parts = all_parts()
    parser = argparse.ArgumentParser(prog="gpu-check", description="GPU tests and benchmarks, in parts.")
    parser.add_argument("part", nargs="*", help=f"{', '.join(parts)}; all of them by default, in this order")
    wanted = parser.parse_args(arguments).part or list(parts)
    unknown = [name for name in wanted if name not in parts]
    if unknown:
        parser.error(f"there is no part {', '.join(map(repr, unknown))}; the parts are {', '.join(parts)}")
    if not torch.cuda.is_available():
        print(
            "gpu-check: there is no GPU here (torch.cuda.is_available() is False), so nothing was checked",
            file=sys.stderr,
        )
        return 1
    result = Result.of_today()
    with interruptible():
        for name in wanted:
            try:
                outcome = run_part(parts[name], name, result)
            except KeyboardInterrupt:
                print("gpu-check: interrupted", file=sys.stderr)
                break
            result.add(name, outcome)
            for line in result.describe(name):
                print(f"gpu-check: {line}", flush=True)
            if outcome.interrupted:
                break
    print(f"gpu-check: {result.path}")
    print(f"gpu-check: {result.verdict(wanted)}")
    return 0 if result.passed(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
