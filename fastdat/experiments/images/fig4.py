"""Fig. 4: train FID of DCGAN with and without DAT over Adam's learning rate and over its betas, on CIFAR-10.

The paper gives betas (0.5, 0.999) and n_dis 1 for the left part and LR 2e-4 for the right one, and names 1e-3, 2e-3
and 5e-3 as rates at which plain training fails. Ours: the other rates and the pairs of betas, 100,000 steps, batch 64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from fastdat.experiments.catalogue import Options
from fastdat.experiments.figure_style import COLOURS, INK
from fastdat.experiments.images import study_texts as texts
from fastdat.experiments.images.image_study import Arm, arms_wanted, scores_of, train_all
from fastdat.experiments.images.radar import draw_radar
from fastdat.experiments.images.thin_runs import FULL_FID, KID, full_protocol, thin, thin_protocol
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row, Runs
from fastdat.experiments.paper_tables import FIG4_BETAS, FIG4_FAILING_LRS, FIG4_LR
from fastdat.experiments.spent_time import timed
from fastdat.training.presets import preset

LRS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3)
BETAS = ((0.0, 0.9), (0.0, 0.999), (0.5, 0.9), (0.5, 0.999), (0.9, 0.999))
QUICK_LRS = (2e-4, 1e-3, 5e-3)
QUICK_STEPS = 1_200
SIDES = {"DCGAN": "dcgan-cifar10", "DCGAN-DAT": "dcgan-dat-cifar10"}

_NOTES = (
    "The figure prints no number: only that points nearer to the origin are better, and DAT is said to be nearer "
    "everywhere.",
    "The paper leaves open: the learning rates beside the three that fail, all pairs of betas, the number of steps, "
    "and the widths of its DCGAN with 4 convolutions. The repository of its code has a residual net of that name.",
    'It says that plain DCGAN "cannot be trained due to the gradient vanishing" at LR 1e-3, 2e-3 and 5e-3.',
)


@dataclass(frozen=True)
class Setting:
    """A point of the figure: learning rate and betas of both Adams."""

    lr: float
    betas: tuple[float, float]

    def arm(self, side: str) -> str:
        """The name of its arm on one side of the comparison."""
        return f"LR {_rate(self.lr)}, betas {self.betas}, {side}"


LEFT = tuple(Setting(lr, FIG4_BETAS) for lr in LRS)
RIGHT = tuple(Setting(FIG4_LR, betas) for betas in BETAS)


@timed
def run(options: Options, folder: Path) -> Outcome:
    """Train all settings with and without DAT; the one that both parts of the figure share is trained once."""
    parts = {"learning rate": tuple(Setting(lr, FIG4_BETAS) for lr in QUICK_LRS)}
    if not options.quick:
        parts = {"learning rate": LEFT, "betas": RIGHT}
    arms = arms_wanted(arms_of([s for part in parts.values() for s in part], options.quick), options.only)
    seeds = options.seeds or 1
    found = train_all(arms, seeds, options, folder)
    score = "kid" if options.quick else "fid"
    tables = tuple(_table(what, part, found, score, options.quick) for what, part in parts.items())
    first = arms[0].config
    return Outcome(
        name="fig4",
        title="Fig. 4" + (", scaled down: a thin DCGAN, three learning rates" if options.quick else ""),
        quick=options.quick,
        command=texts.command("fig4", options, seeds),
        protocol=(
            thin_protocol(first) if options.quick else full_protocol(first),
            f"Left: betas {FIG4_BETAS}. Right, in full length only: LR {_rate(FIG4_LR)}. All with n_dis {first.n_dis}.",
        ),
        tables=(*tables, *texts.divergences(found)),
        findings=tuple(s for what, part in parts.items() for s in _findings(what, part, found, score)),
        notes=_NOTES,
        config=texts.settings(arms, seeds),
        details=texts.details(found),
        origin=texts.origin(found),
        figures={"": draw(parts, found, score)},
    )


def arms_of(settings: Sequence[Setting], quick: bool) -> tuple[Arm, ...]:
    """The arms of these settings, each once, in their order."""
    arms = {}
    for setting in dict.fromkeys(settings):
        for side, name in SIDES.items():
            config = preset(name).replace({"lr": setting.lr, "betas": setting.betas})
            config = thin(config, QUICK_STEPS) if quick else config.replace({"eval": FULL_FID})
            arms[setting.arm(side)] = config
    return tuple(Arm(name, config) for name, config in arms.items())


def _table(what: str, part: Sequence[Setting], found: texts.Found, score: str, quick: bool) -> ResultTable:
    head = KID if quick else "train FID (inception-v3-compat)"
    columns = [Column(f"{side}: {head}") for side in SIDES]
    rows = []
    for setting in part:
        cells = {
            column.name: scores_of(found.get(setting.arm(side), ()), score)
            for column, side in zip(columns, SIDES, strict=True)
        }
        rows.append(Row(_label(what, setting), cells))
    return ResultTable(f"Score at the last step, by {what}", what, tuple(columns), tuple(rows))


def _findings(what: str, part: Sequence[Setting], found: texts.Found, score: str) -> Iterator[str]:
    """At how many settings DAT is better, each setting by itself, and what the rates that fail in the paper cost."""
    lower: list[bool] = []
    compared: list[str] = []
    for setting in part:
        plain, dat = (scores_of(found.get(setting.arm(side), ()), score) for side in SIDES)
        if isinstance(plain, Runs) and isinstance(dat, Runs):
            lower.append(texts.lower(dat, plain))
        elif "diverged" in (plain, dat) and None not in (plain, dat):
            lower.append(isinstance(dat, Runs))
        where = f"LR {_rate(setting.lr)}, betas {setting.betas}"
        compared += texts.difference(f"{where}: {score.upper()}", "DCGAN-DAT", dat, "DCGAN", plain)
    if len(lower) > 1:
        yield f"The {score.upper()} is lower with DAT at {texts.counted(lower)} settings of the {what}."
    yield from compared
    base = next((s for s in part if s.lr == FIG4_LR and s.betas == FIG4_BETAS), None)
    if base is None:
        return
    for setting in (s for s in part if s.lr in FIG4_FAILING_LRS):
        ratios = []
        for side in SIDES:
            at_base, there = (scores_of(found.get(s.arm(side), ()), score) for s in (base, setting))
            if isinstance(at_base, Runs) and isinstance(there, Runs) and at_base.mean > 0:
                ratios.append(
                    f"that of {side} is {there.mean / at_base.mean:.1f} times that at {_rate(base.lr)}"
                )
        if ratios:
            yield f"At LR {_rate(setting.lr)} the {score.upper()}: {', '.join(ratios)}."


def draw(parts: dict[str, tuple[Setting, ...]], found: texts.Found, score: str) -> Figure:
    """One radar chart for each part, as in the paper: a setting on each ray, smaller is nearer to the origin."""
    figure = Figure(figsize=(5.2 * len(parts), 5.2), layout="constrained")
    for i, (what, part) in enumerate(parts.items()):
        axes = figure.add_subplot(1, len(parts), i + 1, projection="polar")
        series = {}
        for side in SIDES:
            cells = [scores_of(found.get(setting.arm(side), ()), score) for setting in part]
            series[side] = [cell.mean if isinstance(cell, Runs) else None for cell in cells]
        draw_radar(axes, [_label(what, setting) for setting in part], series, COLOURS)
        axes.set_title(
            f"{what}: {'KID, EfficientNet-Lite0' if score == 'kid' else 'train FID'}", color=INK, pad=18
        )
        if i == 0:
            axes.legend(loc="upper left", bbox_to_anchor=(-0.1, 1.12), frameon=False, labelcolor=INK)
    return figure


def _label(what: str, setting: Setting) -> str:
    return _rate(setting.lr) if what == "learning rate" else str(setting.betas)


def _rate(lr: float) -> str:
    """``"2e-4"``."""
    mantissa, exponent = f"{lr:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"
