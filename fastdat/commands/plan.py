"""``fastdat plan``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastdat.commands.common import user_errors

if TYPE_CHECKING:
    from fastdat.training.run_plan import Plan


def plan(
    preset: Annotated[str, typer.Option(help="Configuration of the training; see: fastdat presets.")],
    batch_size: Annotated[
        int | None, typer.Option(min=2, help="Reals and fakes per D step, on all GPUs together.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that share a batch.")] = 1,
    microbatch: Annotated[
        int | None, typer.Option(min=1, help="Reals, and as many fakes, that D sees at a time.")
    ] = None,
    gpu: Annotated[str, typer.Option(help="Name of the GPU, or a part of it.")] = "NVIDIA H200",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. dat.second_order=true."),
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option(
            help="JSON of `make gpu-check PART=sizes`, from your own GPU; beside the measurements that fastdat brings."
        ),
    ] = None,
) -> None:
    """Say how much memory and time a training will need, from measured trainings on GPUs of that kind."""
    with user_errors():
        from fastdat.training import preset as named
        from fastdat.training.measured_sizes import read_results, shipped
        from fastdat.training.run_plan import Planner
        from fastdat.training.train_config import parse_assignment

        flags = {"batch_size": batch_size, "microbatch": microbatch}
        changes = {key: value for key, value in flags.items() if value is not None}
        config = named(preset).replace(changes | dict(map(parse_assignment, set_ or [])))
        own = [] if measured is None else read_results(measured)
        others = [m for m in shipped() if m.device not in {o.device for o in own}]
        for line in _lines(preset, Planner(gpu, own + others).plan(config, gpus)):
            typer.echo(line)


def _lines(name: str, plan: Plan) -> Iterator[str]:
    config, memory = plan.config, plan.memory
    gib = 2**30
    where = plan.gpu if plan.gpus == 1 else f"{plan.gpus} x {plan.gpu}"
    parts = "" if config.microbatch is None else f", D in parts of {min(config.microbatch, plan.batch):,}"
    yield f"{name}, batch {config.batch_size:,} on {where}: {plan.batch:,} reals and fakes a GPU{parts}"
    room = "" if memory.whole is None else f" of {memory.whole / gib:.0f} GiB"
    verdict = {True: ": fits", False: ": does not fit", None: ""}[memory.fits]
    yield f"memory a GPU   {memory.total / gib:.1f} GiB{room}{verdict}"
    yield _images(plan)
    of_D = "a D step" if config.n_dis == 1 else f"{config.n_dis} D steps"
    yield f"iteration      {plan.seconds * 1e3:,.1f} ms for {of_D} and a G step{_by(plan)}"
    yield f"reals          {plan.images_per_second:,.0f} a second"
    yield (
        f"{config.steps:,} steps".ljust(15)
        + f"{_duration(plan.hours)}, without compilation, scores and samples"
    )
    for line in plan.advice:
        yield f"instead        {line}"
    count, errors = plan.measured
    yield (
        f"from {count} measured trainings ({plan.nets}); when each is predicted from the others, time is wrong by "
        f"at most {math.ceil(100 * errors.seconds)}% and memory by {math.ceil(100 * errors.held)}%"
    )
    for remark in plan.remarks:
        yield f"not measured: {remark}"


def _images(plan: Plan) -> str:
    """Where the data set lies, and how much memory it takes."""
    from fastdat.training.run_plan import image_set_bytes

    images, size = plan.memory.images, image_set_bytes(plan.config)
    if images is None or size is None:
        return "images         not counted: how many there are is not known"
    words = f"{size / 2**30:.1f} GiB"
    if not images:
        return f"images         {words} of {plan.config.dataset} stay in the host's memory"
    return f"of these       {words} for the images of {plan.config.dataset}, which lie on the GPU"


def _duration(hours: float) -> str:
    if hours >= 1.5:
        return f"{hours:,.1f} hours"
    return f"{60 * hours:.0f} minutes" if hours * 60 >= 1.5 else f"{3600 * hours:.0f} seconds"


def _by(plan: Plan) -> str:
    """The parts of an iteration's time, if there are several."""
    names = {"computing": "computing", "host": "waiting for the host", "reducing": "averaging gradients"}
    parts = [f"{names[key]} {1e3 * value:,.1f}" for key, value in plan.by.items() if value]
    return f" ({', '.join(parts)})" if len(parts) > 1 else ""
