"""What torch.compile gives an H200 to do for a step, seen without one: ``python -m bench.gpu_plan``.

Every step is lowered by torch's CUDA build for a pretended device; its launches are counted, with the bytes and FLOPs
of each, and timed by a model (launches.py). ``make gpu-plan`` writes bench/results/gpu-plan.json, which a test holds
today's code to, so that no change makes the GPU's work grow unseen.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bench import launches as model
from bench.environment import RESULTS
from bench.launches import Launch
from bench.pretended_gpu import H200, PretenceError, pretend
from bench.workloads import DAT, DAT_SECOND_ORDER, PLAIN, Workload
from fastdat import DATConfig
from fastdat.util.files import write_atomically
from fastdat.util.provenance import commit_info, versions

COMMITTED = RESULTS / "gpu-plan.json"

NETS = {"sngan32": ("SNGAN-32", 32), "sngan64": ("SNGAN-64", 64)}
"""By name on the command line: name in tables, resolution."""

VARIANTS = {
    "plain": ("SNGAN", PLAIN),
    "dat": ("DAT", DAT),
    "dat2": ("DAT second order", DAT_SECOND_ORDER),
    "official": ("DAT official", DATConfig.official()),
}
"""By name on the command line: name in tables, configuration of the step."""

MODES = ("default", "reduce-overhead")
"""Of torch.compile; its others time kernels on the device."""

TOLERANCE = 0.02
"""By which launches and model time may differ from the committed file."""


def main(argv: list[str] | None = None) -> int:
    """Returns 1 where no device can be pretended, or with ``--compile`` a kernel does not compile."""
    given = _arguments(argv)
    try:
        pretend()
    except PretenceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    plans: dict[str, dict[str, Any]] = {}
    sound = True
    for net in given.nets:
        for variant in given.variants:
            plan, compiles = _plan(net, variant, given)
            plans.setdefault(NETS[net][0], {})[VARIANTS[variant][0]] = plan
            sound &= compiles
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(given.json, (json.dumps(document(plans), indent=1) + "\n").encode())
        print(f"\n{given.json} written")
    return 0 if sound else 1


def document(plans: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The JSON: plans by net and variant, and where they come from. It names no host and no path."""
    return {
        "versions": plan_versions(),
        "commit": commit_info(),
        "device": f"{H200.name}, pretended",
        "model": model.MODEL,
        "plans": plans,
    }


def plan_versions() -> dict[str, str | None]:
    """Of what writes the code, and of fastdat."""
    import triton

    return {**versions(), "cuda": torch.version.cuda, "triton": str(triton.__version__)}


def summary(workload: Workload, mode: str, launches: list[Launch]) -> dict[str, Any]:
    """One plan, for the JSON."""
    total = model.total(launches).summary()
    return {
        "batch": workload.batch,
        "dtype": str(workload.amp or torch.float32).removeprefix("torch."),
        "layout": str(workload.memory_format).removeprefix("torch."),
        "mode": mode,
        "launches": total["launches"],
        "bytes": total["bytes"],
        "flops": total["flops"],
        "model_us": total["us"],
        "kinds": {kind: of_kind.summary() for kind, of_kind in model.by_kind(launches).items()},
    }


def differences(found: dict[str, Any], committed: dict[str, Any]) -> list[str]:
    """Where one JSON's plans have other launches or model time than the same ones of another, by more than TOLERANCE.

    Less is told as well as more: a gain that is not committed could be lost again unseen.
    """
    told = []
    for net, variants in found["plans"].items():
        for variant, plan in variants.items():
            before = committed["plans"].get(net, {}).get(variant)
            if before is None:
                told.append(f"{net}, {variant}: not in the committed file")
                continue
            for what in ("launches", "model_us"):
                change = plan[what] / before[what] - 1
                if abs(change) > TOLERANCE:
                    told.append(f"{net}, {variant}: {what} {before[what]} -> {plan[what]} ({change:+.1%})")
    return told


def _plan(net: str, variant: str, given: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """One net and variant, printed and, with ``--out``, written down. Whether its kernels compile, where asked."""
    # What asks about the device when it is imported: after `pretend`.
    from bench import generated_kernels, generated_step, replay

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
        _write(given.out / f"{net}-{variant}.txt", model.listing(launches))
    if not given.compile:
        return plan, True
    kernels = list(generated_kernels.compile_kernels(step.code))
    print(*generated_kernels.report(kernels), sep="\n", flush=True)
    if given.out is not None:
        _write(given.out / f"{net}-{variant}.registers.txt", map(str, kernels))
    return plan, not generated_kernels.failed(kernels)


def _write(path: Path, lines: Any) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu_plan", description="What a GPU would be given for a step, seen without one."
    )
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS), metavar="NET", help=_of(NETS))
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=list(VARIANTS),
        metavar="VARIANT",
        help=_of(VARIANTS),
    )
    parser.add_argument("--batch", type=int, default=64, help="samples a side (64)")
    parser.add_argument("--mode", choices=MODES, default="default", help="of torch.compile")
    parser.add_argument(
        "--compile", action="store_true", help="compile each Triton kernel, in every configuration, for sm_90"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plans there")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write the generated code, each launch and registers there"
    )
    given = parser.parse_args(argv)
    if given.batch < 2:
        parser.error(f"--batch must be at least 2 samples a side, got {given.batch}")
    return given


def _of(names: dict[str, Any]) -> str:
    return f"of {', '.join(names)} (all)"


if __name__ == "__main__":
    sys.exit(main())
