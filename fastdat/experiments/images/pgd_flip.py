"""Fig. 9: how many PGD steps D's verdict on fakes and on reals survives, with and without DAT, on MNIST.

The paper gives DCGAN, MNIST, a G "without convergence", and the mean numbers of steps without DAT. Ours: training ends
after 500 steps, 500 reals and 500 fakes, D's threshold (the midpoint of its mean logits), at most 100 steps of
2/255, and two larger sizes of a step beside it, since the paper's is not known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from matplotlib.figure import Figure
from torch import Tensor

from fastdat.data import ImageSet, TrainSampler
from fastdat.experiments.catalogue import Options
from fastdat.experiments.figure_style import INK
from fastdat.experiments.images import study_texts as texts
from fastdat.experiments.images.image_study import Arm, Trained, arms_wanted, train_all
from fastdat.experiments.images.thin_runs import thin
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row, Runs
from fastdat.experiments.paper_tables import FIG9_STEPS_WITHOUT_DAT
from fastdat.experiments.spent_time import timed
from fastdat.robustness import PGDFlips, midpoint, pgd_steps_to_flip
from fastdat.robustness.pgd import Side
from fastdat.training import noise
from fastdat.training.build import choose_device, load_data
from fastdat.training.noise import Noise
from fastdat.training.png import grid
from fastdat.training.presets import preset
from fastdat.training.saved_nets import read_nets

ARMS = {"DCGAN": "dcgan-mnist", "DCGAN-DAT": "dcgan-dat-mnist"}
STEPS, QUICK_STEPS = 500, 600
COUNT = 500
"""Reals, and as many fakes."""
CAP = 100
STEP_SIZES = (2 / 255, 8 / 255, 32 / 255)
"""Of PGD; the first one is that of the main table and of the picture."""
SHOWN = 10
"""Images in a row of the picture."""
_SEED = 0

_NOTES = (
    "The paper leaves open: the size of a PGD step and the largest number of steps, D's threshold between real and "
    'fake, how long the nets were trained ("without convergence"), and how many images were attacked. K depends on the '
    "size of a step directly, so our numbers and the paper's are not comparable; only with and without DAT are.",
    'Fig. 9\'s text says that the number of steps is "significantly reduced when DAT is used", where its argument '
    'needs "increased". The text prints 3.2 and 3.88 without DAT; that fakes come first is the order of the caption. '
    "The numbers with DAT are in the figure only.",
    "D is evaluated: its batch norm uses the running statistics of reals and fakes together, while in training each "
    "side has its own.",
)


@dataclass(frozen=True)
class Attacked:
    """One run under attack: for each size of a step, what was found on each side.

    Args:
        seed: of the run.
        threshold: of D's verdict.
        fakes, reals: the clean images.
        flips: size of a step -> side -> result.
    """

    seed: int
    threshold: float
    fakes: Tensor
    reals: Tensor
    flips: Mapping[float, Mapping[Side, PGDFlips]]


@timed
def run(options: Options, folder: Path) -> Outcome:
    """Train DCGAN with and without DAT on MNIST, and attack both discriminators."""
    arms, seeds = arms_wanted(arms_of(options.quick), options.only), options.seeds or 3
    # For so few steps of small nets, compiling takes longer than it saves.
    found = train_all(arms, seeds, replace(options, compile=False), folder)
    images = _images(found)
    attacked = {
        name: [result for run in runs if (result := attack(run, images, options.device)) is not None]
        for name, runs in found.items()
    }
    first = arms[0].config
    width = f"ngf = ndf = {first.ngf}" if options.quick else "full width"
    return Outcome(
        name="fig9",
        title="Fig. 9" + (", scaled down: a thin DCGAN on MNIST" if options.quick else ""),
        quick=options.quick,
        command=texts.command("fig9", options, seeds),
        protocol=(
            f"DCGAN on MNIST at 28 pixels, {width}, {first.loss} loss, {first.steps} G steps of batch "
            f"{first.batch_size}, {seeds} seed{'s' * (seeds > 1)}; not compiled.",
            f"{COUNT} training images and {COUNT} fakes of each run. D takes an image for real if its logit reaches "
            "the midpoint of its mean logits of both. Images on the wrong side before the attack are left out. Eq. 6 "
            f"with D's logit: x <- clip(x + s a sign(dD/dx)), s = +1 for fakes and -1 for reals, at most {CAP} steps. "
            "Where not all verdicts flip, the mean counts the others with this number and is a lower bound.",
        ),
        tables=(*_tables(attacked), *texts.divergences(found)),
        findings=tuple(_findings(attacked)),
        notes=_NOTES,
        config=texts.settings(arms, seeds) | {"count": COUNT, "cap": CAP, "step_sizes": list(STEP_SIZES)},
        details=texts.details(found) | {"attacks": _details(attacked)},
        origin=texts.origin(found),
        figures={"": draw(attacked)},
    )


def arms_of(quick: bool) -> tuple[Arm, ...]:
    """DCGAN without and with DAT."""
    arms = []
    for name, known in ARMS.items():
        steps = QUICK_STEPS if quick else STEPS
        config = thin(preset(known), steps, eval__every=None)
        arms.append(Arm(name, config if quick else config.replace({"ngf": None, "ndf": None})))
    return tuple(arms)


def attack(run: Trained, images: ImageSet | None, device: str) -> Attacked | None:
    """Attack D of the last step; None for a run that NaN ended, or where D has no verdict since its logits overflow."""
    if run.diverged:
        return None
    nets = read_nets(run.folder, "latest", ema=False)
    where = choose_device(device)
    G, D = nets.G.to(where), nets.D.to(where)
    data = images if images is not None else load_data(nets.config)
    assert data is not None  # it is None only for mixtures
    reals = TrainSampler(data, min(COUNT, len(data)), seed=_SEED, device=where).batch(0)
    with torch.no_grad():
        fakes = G(Noise(nets.config.nz, seed=_SEED, device=where).draw(noise.COMMAND, 0, COUNT))
    threshold = midpoint(D, reals, fakes)
    if not math.isfinite(threshold):
        return None
    sides: dict[Side, Tensor] = {"fake": fakes, "real": reals}
    flips = {
        size: {
            side: pgd_steps_to_flip(D, x, side, threshold=threshold, step_size=size, cap=CAP)
            for side, x in sides.items()
        }
        for size in STEP_SIZES
    }
    return Attacked(run.seed, threshold, fakes, reals, flips)


def _images(found: texts.Found) -> ImageSet | None:
    """The training images, read once for all runs."""
    runs = [run for runs in found.values() for run in runs]
    return load_data(runs[0].config) if runs and runs[0].config.data is not None else None


# --- tables and sentences --------------------------------------------------------------------------------------------


def _tables(attacked: Mapping[str, Sequence[Attacked]]) -> Iterator[ResultTable]:
    for size in STEP_SIZES:
        rows = []
        for name, results in attacked.items():
            cells: dict[str, Any] = {}
            for side in get_args(Side):
                cells[f"K of {side}s"] = steps_of(results, size, side)
                cells[f"{side}s that flip, %"] = _runs(
                    100 * result.flips[size][side].success_rate
                    for result in results
                    if result.flips[size][side].count
                )
            is_papers = size == STEP_SIZES[0] and name == "DCGAN"
            printed = {f"K of {side}s": value for side, value in FIG9_STEPS_WITHOUT_DAT.items()}
            rows.append(Row(name, cells, printed if is_papers else {}))
        columns = [Column("K of fakes"), Column("K of reals")]
        columns += [Column("fakes that flip, %", 1), Column("reals that flip, %", 1)]
        paper = tuple(columns[:2]) if size == STEP_SIZES[0] else ()
        title = f"PGD steps until D's verdict flips, step {_size(size)}"
        yield ResultTable(title, "model", tuple(columns), tuple(rows), paper)


def steps_of(results: Sequence[Attacked], size: float, side: Side) -> Runs | None:
    """Mean steps of each run that has eligible samples of this side."""
    return _runs(result.flips[size][side].mean_steps for result in results if result.flips[size][side].count)


def _runs(values: Iterator[float]) -> Runs | None:
    listed = tuple(values)
    return Runs(listed) if listed else None


def _findings(attacked: Mapping[str, Sequence[Attacked]]) -> Iterator[str]:
    """Whether DAT makes more steps necessary, for each size and side, against Sec. IV-D's argument."""
    for size in STEP_SIZES:
        for side in get_args(Side):
            plain, dat = (steps_of(attacked.get(name, ()), size, side) for name in ARMS)
            if plain is not None and dat is not None and plain.mean > 0:
                verdict = "lower" if dat.mean < plain.mean else "higher"
                verdict = "equal" if texts.alike(dat, plain) else verdict
                yield (
                    f"Step {_size(size)}: with DAT, K of {side}s is {verdict}: {texts.number(dat)} against "
                    f"{texts.number(plain)} without attack, {dat.mean / plain.mean:.2f} times."
                )


def _details(attacked: Mapping[str, Sequence[Attacked]]) -> list[dict[str, Any]]:
    return [
        {
            "arm": name,
            "seed": result.seed,
            "threshold": result.threshold,
            "attacks": [
                {
                    "step_size": size,
                    "side": side,
                    "eligible": flips.count,
                    "flipped": int(flips.flipped.sum()),
                    "mean_steps": flips.mean_steps if flips.count else None,
                }
                for size, sides in result.flips.items()
                for side, flips in sides.items()
            ],
        }
        for name, results in attacked.items()
        for result in results
    ]


def _size(size: float) -> str:
    return f"{size * 255:.0f}/255"


# --- the picture -----------------------------------------------------------------------------------------------------


def draw(attacked: Mapping[str, Sequence[Attacked]]) -> Figure:
    """As in the paper, a panel for each model: fakes, the same attacked, reals, the same attacked; of the first run."""
    shown = {name: results[0] for name, results in attacked.items() if results}
    figure = Figure(figsize=(5.2 * max(1, len(shown)), 2.9), layout="constrained")
    for i, (name, result) in enumerate(shown.items()):
        axes = figure.add_subplot(1, len(shown), i + 1)
        flips = result.flips[STEP_SIZES[0]]
        rows = [
            row
            for side, images in (("fake", result.fakes), ("real", result.reals))
            for row in _rows_of(flips[side], images)  # type: ignore[index]
        ]
        axes.imshow(grid(torch.cat(rows).cpu(), columns=SHOWN)[0].numpy(), cmap="gray", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
        for line in axes.spines.values():
            line.set_visible(False)
        steps = ", ".join(
            f"K of {side}s {flips[side].mean_steps:.2f}" for side in get_args(Side) if flips[side].count
        )
        axes.set_title(f"({chr(ord('a') + i)}) {name}: {steps}", color=INK, fontsize=10)
    return figure


def _rows_of(flips: PGDFlips, images: Tensor) -> list[Tensor]:
    """The first eligible images and, below them, the same ones attacked; white where there are fewer."""
    chosen = flips.eligible.nonzero().squeeze(1)[:SHOWN]
    missing = torch.ones(SHOWN - len(chosen), *images.shape[1:], device=images.device)
    return [torch.cat([x[chosen], missing]) for x in (images, flips.images)]
