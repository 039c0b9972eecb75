"""Prints, for each net and variant of the step, what an H200 would be given to do, without having one.

`make gpu-plan` writes bench/results/gpu-plan.json. A test compares it with today's code, so that the work of the GPU
does not change unnoticed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from bench.gpu_plan import launches as model
from bench.gpu_plan.plan import MODES, NETS, VARIANTS, document, summary
from bench.gpu_plan.pretended_gpu import PretenceError, pretend
from bench.step.workloads import Workload
from fastdat.util.files import write_atomically


def main(argv: list[str] | None = None) -> int:
    """Returns 1 where no GPU can be pretended and, with ``--compile``, where a kernel does not compile."""
    given = _arguments(argv)
    try:
        pretend()
    except PretenceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    plans: dict[str, dict[str, Any]] = {}
    all_compile = True
    for net in given.nets:
        for variant in given.variants:
            plan, compiles = _plan(net, variant, given)
            plans.setdefault(NETS[net][0], {})[VARIANTS[variant][0]] = plan
            all_compile &= compiles
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(given.json, (json.dumps(document(plans), indent=1) + "\n").encode())
        print(f"\n{given.json} written")
    return 0 if all_compile else 1


def _plan(net: str, variant: str, given: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Plan one net and variant, print it, and write its files with ``--out``.

    Returns:
        the plan, and whether all kernels compile; True without ``--compile``.
    """
    # These modules ask about the device when they are imported, so they must come after `pretend`.
    from bench.gpu_plan import generated_kernels, generated_step, replay

    (name, resolution), (title, config) = NETS[net], VARIANTS[variant]
    workload = Workload(given.batch, torch.device("cuda", 0), torch.bfloat16, resolution)
    start = time.perf_counter()
    step = generated_step.generate(workload, config, given.mode)
    launches = replay.launches_of(step.code)
    plan = summary(workload, given.mode, launches)
    print(
        f"\n{name}, {title}: batch {plan['batch']} a side, {plan['dtype']}, {plan['layout']}, mode {plan['mode']} "
        f"({time.perf_counter() - start:.0f} s)"
    )
    print(*model.table(launches), sep="\n", flush=True)
    if given.mode == "reduce-overhead" and step.cudagraphs_refused is not None:
        print(f"  cannot be replayed as a CUDA graph: {step.cudagraphs_refused}")
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / f"{net}-{variant}.py").write_text(step.code)
        _write_lines(given.out / f"{net}-{variant}.txt", model.listing(launches))
    if not given.compile:
        return plan, True
    kernels = list(generated_kernels.compile_kernels(step.code))
    print(*generated_kernels.report(kernels), sep="\n", flush=True)
    if given.out is not None:
        _write_lines(given.out / f"{net}-{variant}.registers.txt", map(str, kernels))
    return plan, not generated_kernels.failed(kernels)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu_plan",
        description="What a GPU would be given to do for a step, seen without one.",
    )
    parser.add_argument(
        "--nets", nargs="+", choices=NETS, default=list(NETS), metavar="NET", help=_choices(NETS)
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=list(VARIANTS),
        metavar="VARIANT",
        help=_choices(VARIANTS),
    )
    parser.add_argument("--batch", type=int, default=64, help="samples a side (64)")
    parser.add_argument("--mode", choices=MODES, default="default", help="mode of torch.compile")
    parser.add_argument(
        "--compile", action="store_true", help="compile each Triton kernel in every configuration for sm_90"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plans into this file")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write generated code, launches and registers into this folder",
    )
    given = parser.parse_args(argv)
    if given.batch < 2:
        parser.error(f"--batch must be at least 2 samples a side, got {given.batch}")
    return given


def _choices(names: dict[str, Any]) -> str:
    return f"from {', '.join(names)} (default: all)"


if __name__ == "__main__":
    sys.exit(main())
