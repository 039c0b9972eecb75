"""Prints what an H200 would be given to do for each net and variant of the step, and for whole training iterations.

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
from bench.gpu_plan.launches import Launch
from bench.gpu_plan.plan import (
    ITERATIONS,
    MODES,
    NETS,
    VARIANTS,
    document,
    iteration_summary,
    summary,
)
from bench.gpu_plan.pretended_gpu import PretenceError, pretend
from bench.step.workloads import Workload
from fastdat.training.device_settings import settled
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
    iterations: dict[str, Any] = {}
    all_compile = True
    for net in given.nets:
        for variant in given.variants:
            plan, compiles = _plan(net, variant, given)
            plans.setdefault(NETS[net][0], {})[VARIANTS[variant][0]] = plan
            all_compile &= compiles
    for name in given.iterations:
        iterations[ITERATIONS[name][0]], compiles = _plan_iteration(name, given)
        all_compile &= compiles
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(given.json, (json.dumps(document(plans, iterations), indent=1) + "\n").encode())
        print(f"\n{given.json} written")
    return 0 if all_compile else 1


def _plan(net: str, variant: str, given: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Plan one net and variant, print it, and write its files with ``--out``.

    Returns:
        the plan, and whether all kernels compile; True without ``--compile``.
    """
    # These modules ask about the device when they are imported, so they must come after `pretend`.
    from bench.gpu_plan import generated_step, replay

    (name, resolution), (title, config) = NETS[net], VARIANTS[variant]
    workload = Workload(given.batch, torch.device("cuda", 0), torch.bfloat16, resolution)
    start = time.perf_counter()
    step = generated_step.generate(workload, config, given.mode)
    launches = replay.launches_of(step.code)
    plan = summary(workload, given.mode, launches)
    _print_title(f"{name}, {title}", plan, f"mode {plan['mode']}", start)
    print(*model.table(launches), sep="\n", flush=True)
    if given.mode == "reduce-overhead" and step.cudagraphs_refused is not None:
        print(f"  cannot be replayed as a CUDA graph: {step.cudagraphs_refused}")
    return plan, _finish(f"{net}-{variant}", step.code, launches, given)


def _plan_iteration(name: str, given: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """As ``_plan``, of a whole iteration."""
    from bench.gpu_plan.iteration import DEVICE, plan_iteration

    title, config = ITERATIONS[name]
    config, _ = settled(config.replace({"batch_size": given.batch}), DEVICE)
    start = time.perf_counter()
    planned = plan_iteration(config)
    plan = iteration_summary(config, planned.launches)
    _print_title(f"iteration, {title}", plan, f"{plan['n_dis']} steps of D", start)
    print(
        *model.table(planned.launches), "", *model.table(planned.launches, parts=True), sep="\n", flush=True
    )
    return plan, _finish(f"iteration-{name}", planned.code, planned.launches, given)


def _print_title(what: str, plan: dict[str, Any], how: str, start: float) -> None:
    print(
        f"\n{what}: batch {plan['batch']} a side, {plan['dtype']}, {plan['layout']}, {how} "
        f"({time.perf_counter() - start:.0f} s)"
    )


def _finish(name: str, code: str, launches: list[Launch], given: argparse.Namespace) -> bool:
    """Write the files of ``--out``, do what ``--compile`` asks for, and tell whether all kernels compile."""
    from bench.gpu_plan import generated_kernels

    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / f"{name}.py").write_text(code)
        _write_lines(given.out / f"{name}.txt", model.listing(launches))
    if not given.compile:
        return True
    kernels = list(generated_kernels.compile_kernels(code))
    print(*generated_kernels.report(kernels), sep="\n", flush=True)
    if given.out is not None:
        _write_lines(given.out / f"{name}.registers.txt", map(str, kernels))
    return not generated_kernels.failed(kernels)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu_plan",
        description="What a GPU would be given to do for a step, or for a training iteration, seen without one.",
        epilog="Steps are those of all named nets and variants, all where only one of the two is named. If nothing is "
        "named, all steps and iterations are planned.",
    )
    for flag, names, metavar in (
        ("--nets", NETS, "NET"),
        ("--variants", VARIANTS, "VARIANT"),
        ("--iterations", ITERATIONS, "NAME"),
    ):
        parser.add_argument(flag, nargs="+", choices=names, metavar=metavar, help=f"from {', '.join(names)}")
    parser.add_argument("--batch", type=int, default=64, help="samples a side (64)")
    parser.add_argument("--mode", choices=MODES, default="default", help="mode of torch.compile, of steps")
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
    if given.nets is given.variants is given.iterations is None:
        given.iterations = list(ITERATIONS)
    elif given.nets is given.variants is None:  # iterations only
        given.nets = []
    given.nets = list(NETS) if given.nets is None else given.nets
    given.variants = list(VARIANTS) if given.variants is None else given.variants
    given.iterations = given.iterations or []
    return given


if __name__ == "__main__":
    sys.exit(main())
