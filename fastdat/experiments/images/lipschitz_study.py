"""The claim of Sec. III-C, measured: does DAT make D less steep while it trains, and is its residual mostly >= 0?

The paper proves it to first order and shows no measurement. Here D's input gradients at reals, at fakes and between
them, the largest singular values of its layers, and the share of attacked samples in the penalty case of Eq. (13) are
measured during the training on CIFAR-10: without attack, with 0-GP, with DAT, and with second-order DAT, whose loss is
that of Eqs. (12) to (15) in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fastdat.experiments.catalogue import Options
from fastdat.experiments.figure_style import COLOURS, INK, draw_band, style_axes
from fastdat.experiments.images import study_texts as texts
from fastdat.experiments.images.image_study import Arm, Trained, arms_wanted, train_all
from fastdat.experiments.images.thin_runs import WIDTH, thin
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row, Runs
from fastdat.training.presets import preset

ARMS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "DCGAN, no attack": ("dcgan-cifar10", {}),
    "DCGAN, 0-GP": ("dcgan-0gp-cifar10", {}),
    "DCGAN, DAT": ("dcgan-dat-cifar10", {}),
    "DCGAN, second-order DAT": ("dcgan-dat-cifar10", {"dat.second_order": True}),
    "SNGAN, no attack": ("sngan-cifar10", {}),
    "SNGAN, DAT": ("sngan-dat-cifar10", {}),
}
QUICK_ARMS = tuple(ARMS)[:4]
QUICK_STEPS, QUICK_EVERY, EVERY = 600, 100, 1_000
SAMPLES, QUICK_SAMPLES = 512, 128

_PLACES = {"real": "reals", "fake": "fakes", "between": "between"}
_OVER_SAMPLES = {"mean": "mean", "q95": "95 %", "max": "greatest"}
PENALTY = "penalty_fraction"

_NOTES = (
    "The Lipschitz constant itself cannot be computed. The greatest input gradient found is a lower bound of it.",
    "Logits of different losses and nets have different scales. Compare the arms of one model with each other.",
    "A singular value of a convolution is that of its matrix (out, in * k * k), as in SNGAN: not the norm of the "
    "operator. Batch norm rescales what convolutions give, so that their singular values alone do not bound D.",
    "0-GP penalises the gradient at reals with weight 10; the paper does not print its weight.",
    "A sample is in the penalty case of Eq. (13) if the attack lowers D's own objective to first order, which is the "
    "paper's residual >= 0; otherwise it is in the reward case. The share is that of training, of reals and fakes "
    "together. Runs without DAT do not measure it.",
    "D is evaluated for the input gradients: batch norm uses its running statistics.",
)


def run(options: Options, folder: Path) -> Outcome:
    """Train all arms with the monitor on, and compare what it measured."""
    arms, seeds = (
        arms_wanted(arms_of(options.quick), options.only),
        options.seeds or (1 if options.quick else 3),
    )
    # For so few steps of small nets, compiling takes longer than it saves.
    found = train_all(arms, seeds, replace(options, compile=False) if options.quick else options, folder)
    first = arms[0].config
    width = f", ngf = ndf = {WIDTH}" if options.quick else ""
    title = "Steepness of D while it trains, for the claim of Sec. III-C"
    return Outcome(
        name="lipschitz",
        title=title + (", scaled down: a thin DCGAN" if options.quick else ""),
        quick=options.quick,
        command=texts.command("lipschitz", options, seeds),
        protocol=(
            f"CIFAR-10{width}, {first.steps:,} G steps, batch {first.batch_size}, {seeds} seed{'s' * (seeds > 1)}"
            + ("; not compiled." if options.quick else "."),
            f"Every {first.monitor.every:,} steps, at {first.monitor.samples} training images and as many fakes, the "
            "same ones each time: the norm of the gradient of D's logit. Between: at one point of the line from each "
            "real to a fake. Penalty share: mean over all steps since the last line of stats.jsonl.",
        ),
        tables=(_at_the_end(found), _over_training(found), *texts.divergences(found)),
        findings=(*_compared(found), *_penalty(found)),
        notes=_NOTES,
        config=texts.settings(arms, seeds),
        details=texts.details(found) | {"curves": _details(found)},
        figures={"": draw(found)},
        seconds=texts.seconds(found),
    )


def arms_of(quick: bool) -> tuple[Arm, ...]:
    """All arms, with the monitor on."""
    arms = []
    for name in QUICK_ARMS if quick else tuple(ARMS):
        known, changes = ARMS[name]
        config = preset(known).replace(changes)
        config = (
            thin(config, QUICK_STEPS, eval__every=None) if quick else config.replace({"eval.every": None})
        )
        monitor = {
            "monitor.every": QUICK_EVERY if quick else EVERY,
            "monitor.samples": QUICK_SAMPLES if quick else SAMPLES,
            "monitor.latent": False,
            "monitor.pgd": False,
        }
        arms.append(Arm(name, config.replace(monitor)))
    return tuple(arms)


# --- numbers ---------------------------------------------------------------------------------------------------------


def curve(runs: Sequence[Trained], key: str) -> dict[int, Runs]:
    """A number of stats.jsonl at each step that has it, over the runs."""
    found: dict[int, list[float]] = {}
    for run in runs:
        for line in run.stats:
            if key in line:
                found.setdefault(line["step"], []).append(line[key])
    return {step: Runs(tuple(values)) for step, values in sorted(found.items())}


def last(runs: Sequence[Trained], key: str) -> Runs | None:
    """The number at its last step, over the runs that have ended without NaN."""
    at = curve([run for run in runs if not run.diverged], key)
    return at[max(at)] if at else None


def mean(runs: Sequence[Trained], key: str) -> Runs | None:
    """Its mean over each run."""
    listed = [[line[key] for line in run.stats if key in line] for run in runs]
    values = tuple(sum(values) / len(values) for values in listed if values)
    return Runs(values) if values else None


def _at_the_end(found: texts.Found) -> ResultTable:
    columns = [
        Column(f"{place}, {words}", 3) for place in _PLACES.values() for words in _OVER_SAMPLES.values()
    ]
    columns += [Column("sigma, greatest", 2), Column("sigma, mean", 2)]
    rows = []
    for name, runs in found.items():
        cells = {
            f"{place}, {words}": last(runs, f"lipschitz_{key}_{what}")
            for key, place in _PLACES.items()
            for what, words in _OVER_SAMPLES.items()
        }
        cells |= {"sigma, greatest": last(runs, "sigma_max"), "sigma, mean": last(runs, "sigma_mean")}
        rows.append(Row(name, cells))
    title = "At the last step: norm of D's input gradient, and largest singular value over D's layers"
    return ResultTable(title, "arm", tuple(columns), tuple(rows))


def _over_training(found: texts.Found) -> ResultTable:
    columns = [Column(f"{place}, mean", 3) for place in _PLACES.values()]
    columns += [Column("penalty case, %", 1), Column("penalty case, least, %", 1)]
    rows = []
    for name, runs in found.items():
        cells = {f"{place}, mean": mean(runs, f"lipschitz_{key}_mean") for key, place in _PLACES.items()}
        cells |= {"penalty case, %": penalty(runs), "penalty case, least, %": penalty(runs, least=True)}
        rows.append(Row(name, cells))
    title = "Mean over the training: norm of D's input gradient, and samples in the penalty case"
    return ResultTable(title, "arm", tuple(columns), tuple(rows))


def penalty(runs: Sequence[Trained], *, least: bool = False) -> Runs | None:
    """Share of samples in the penalty case in percent: mean, or least line of stats.jsonl, of each run."""
    listed = [[100 * line[PENALTY] for line in run.stats if PENALTY in line] for run in runs]
    values = tuple(min(values) if least else sum(values) / len(values) for values in listed if values)
    return Runs(values) if values else None


def _compared(found: texts.Found) -> Iterator[str]:
    """Each arm against that of its model without attack: mean gradient at the last step, at all three places."""
    for name, runs in found.items():
        model, _, what = name.partition(", ")
        plain = f"{model}, no attack"
        if name == plain or plain not in found:
            continue
        for key, place in _PLACES.items():
            a, b = (last(of_arm, f"lipschitz_{key}_mean") for of_arm in (runs, found[plain]))
            yield from texts.difference(
                f"{model}, mean input gradient, {place}, last step", what, a, "no attack", b, 3
            )


def _penalty(found: texts.Found) -> Iterator[str]:
    """Whether the residual is >= 0 "in most cases"."""
    for name, runs in found.items():
        share, least = penalty(runs), penalty(runs, least=True)
        if share is not None and least is not None:
            most = "most" if share.mean > 50 else "less than half of the"
            yield (
                f"{name}: {texts.number(share, 1)} % of the attacked samples are in the penalty case, which is {most} "
                f"cases; the least line of stats.jsonl has {texts.number(least, 1)} %."
            )


def _details(found: texts.Found) -> dict[str, Any]:
    keys = [f"lipschitz_{place}_{what}" for place in _PLACES for what in _OVER_SAMPLES]
    keys += ["sigma_max", "sigma_mean", PENALTY]
    return {
        name: [
            {"seed": run.seed, **{key: [[s["step"], s[key]] for s in run.stats if key in s] for key in keys}}
            for run in runs
        ]
        for name, runs in found.items()
    }


# --- the figure ------------------------------------------------------------------------------------------------------


def draw(found: texts.Found) -> Figure:
    """Over the training: mean gradient at the three places, its 95 % quantile between, and the penalty share."""
    panels = [(f"lipschitz_{key}_mean", f"gradient, {place}, mean", 1.0) for key, place in _PLACES.items()]
    panels += [
        ("lipschitz_between_q95", "gradient, between, 95 %", 1.0),
        ("sigma_max", "greatest sigma of a layer", 1.0),
    ]
    panels.append((PENALTY, "samples in the penalty case, %", 100.0))
    figure = Figure(figsize=(12.6, 6.4), layout="constrained")
    for i, (key, title, scale) in enumerate(panels):
        axes = figure.add_subplot(2, 3, i + 1)
        for colour, (name, runs) in zip(COLOURS, found.items(), strict=False):
            at = curve(runs, key)
            if at:
                band = [(scale * runs.mean, scale * (runs.std or 0.0)) for runs in at.values()]
                draw_band(axes, list(at), band, colour, name, marker=".")
        axes.set_title(title, color=INK, fontsize=10)
        axes.set_xlabel("G steps", color=INK)
        if key == PENALTY:
            axes.set_ylim(0, 100)
        elif i == 0:
            axes.legend(frameon=False, labelcolor=INK, fontsize=9)
        style_axes(axes)
    return figure
