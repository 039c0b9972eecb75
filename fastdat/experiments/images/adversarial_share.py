"""Figs. 1 and 8: the share of G's samples that have an adversarial example of G, over the training, on CIFAR-10.

The paper gives delta = 0.1, CIFAR-10, three runs, "various GAN models". Ours: DCGAN with three losses, and SNGAN; the
measurement every 5,000 steps; 512 z; and everything of the search
(:func:`fastdat.robustness.latent_adversarial_share`). Since norm and threshold are unknown, three norms and two
thresholds are measured; the main one is rms and the midpoint of D's mean logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from matplotlib.figure import Figure

from fastdat.experiments.catalogue import Options
from fastdat.experiments.figure_style import COLOURS, INK, draw_band, style_axes
from fastdat.experiments.images import study_texts as texts
from fastdat.experiments.images.image_study import RUNS, Arm, Trained, arms_wanted, train_all
from fastdat.experiments.images.thin_runs import WIDTH, thin
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row, Runs
from fastdat.experiments.paper_tables import FIG1_DELTA
from fastdat.experiments.spent_time import timed
from fastdat.robustness import latent_adversarial_share, midpoint
from fastdat.robustness.latent_search import Norm
from fastdat.training.callbacks import Callback
from fastdat.training.presets import preset
from fastdat.training.trainer import Trainer

Which = Literal["fig1", "fig8"]
Threshold = Literal["midpoint", "zero"]

MODELS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "DCGAN, gan": ("dcgan", {"loss": "gan"}),
    "DCGAN, lsgan": ("dcgan", {"loss": "lsgan"}),
    "DCGAN, wgan": ("dcgan", {"loss": "wgan"}),
    "SNGAN, hinge": ("sngan", {}),
}
"""Models by their names: beginning of the preset, and changes to it."""
QUICK_MODELS = tuple(MODELS)[:3]
QUICK_STEPS, QUICK_EVERY = 600, 200
EVERY = 5_000
DAT = ", DAT"
"""End of the names of the arms with DAT."""


@dataclass(frozen=True)
class Search:
    """How hard each measurement searches.

    Args:
        every: G steps between measurements.
        count: number of z.
        restarts, steps: of the search.
    """

    every: int
    count: int
    restarts: int
    steps: int


FULL_SEARCH, QUICK_SEARCH = Search(EVERY, 512, 2, 100), Search(QUICK_EVERY, 128, 2, 30)

_NOTES = (
    "The paper leaves open: the norm of the distance, the range of the images, D's threshold, the search, the number "
    "of z, when it measured, and which GANs it shows. With images in [-1, 1], 0.1 as root mean square is 13 of 255 "
    "grey values a pixel; as plain Euclidean distance it is 0.23 of one.",
    "A search finds lower bounds: a share of 0 says that this search found none. Shares of equal searches can be "
    "compared.",
    "Both nets are evaluated: batch norm uses running statistics. So the images, and D's verdict on them, are not "
    "exactly those of training, where batch norm uses each batch's own.",
    "Threshold 0 is that of gan and hinge losses. lsgan's targets are 1 and 0 and wgan has none, so only the midpoint "
    "fits all models.",
)


class ShareProbe:
    """A callback that searches adversarial examples from the same z and reals each time; for stats.jsonl.

    Args:
        search: how hard, and how often.
    """

    def __init__(self, search: Search) -> None:
        self._search = search

    def __call__(self, trainer: Trainer) -> dict[str, float] | None:
        """``share_NORM_THRESHOLD`` and ``eligible_THRESHOLD``, parts of 1; None if it is not time for them.

        Where D's mean logits are not finite, there is no midpoint, and its numbers are missing.
        """
        search, size = self._search, trainer.config.batch_size
        if trainer.done % search.every and trainer.done != trainer.config.steps:
            return None
        (z,), (xr,) = trainer.latents(search.count), trainer.reals(search.count)
        nets = trainer.netG, trainer.netD
        with torch.no_grad():
            xf = torch.cat([trainer.netG(part) for part in z.split(size)])
        thresholds: dict[Threshold, float] = {
            "midpoint": midpoint(trainer.netD, xr, xf, batch_size=size),
            "zero": 0.0,
        }
        thresholds = {name: at for name, at in thresholds.items() if math.isfinite(at)}
        numbers: dict[str, float] = {}
        for norm in get_args(Norm):
            found = latent_adversarial_share(
                *nets,
                z,
                threshold=max(thresholds.values()),
                radius=FIG1_DELTA,
                norm=norm,
                restarts=search.restarts,
                steps=search.steps,
                batch_size=size,
            )
            for name, threshold in thresholds.items():
                at = found.at(threshold)
                numbers[f"eligible_{name}"] = at.eligible_share
                if at.eligible_share:
                    numbers[key_of(norm, name)] = at.share
        return numbers


def key_of(norm: Norm, threshold: Threshold) -> str:
    """Name of a share in stats.jsonl."""
    return f"share_{norm}_{threshold}"


MAIN = key_of("rms", "midpoint")


@timed
def run_fig1(options: Options, folder: Path) -> Outcome:
    """All models without attack."""
    return _run("fig1", options, folder)


@timed
def run_fig8(options: Options, folder: Path) -> Outcome:
    """All models with and without DAT."""
    return _run("fig8", options, folder)


def _run(name: Which, options: Options, folder: Path) -> Outcome:
    arms = arms_wanted(arms_of(name, options.quick), options.only)
    search, seeds = (QUICK_SEARCH, options.seeds or 2) if options.quick else (FULL_SEARCH, options.seeds or 3)
    # For so few steps of small nets, compiling each arm takes longer than it saves.
    compiled = replace(options, compile=False) if options.quick else options
    probes: list[Callback] = [ShareProbe(search)]
    measures = {f"search.{key}": value for key, value in asdict(search).items()} | {
        "search.delta": FIG1_DELTA
    }
    found = train_all(
        arms, seeds, compiled, runs_folder(name, folder), callbacks=lambda _: probes, measures=measures
    )
    number = 1 if name == "fig1" else 8
    first = arms[0].config
    width = f", ngf = ndf = {WIDTH}" if options.quick else ""
    return Outcome(
        name=name,
        title=f"Fig. {number}" + (", scaled down: thin DCGANs, three measurements" if options.quick else ""),
        quick=options.quick,
        command=texts.command(name, options, seeds),
        protocol=(
            f"{' and '.join(dict.fromkeys(arm.config.model or '' for arm in arms)).upper()} on CIFAR-10{width}, "
            f"{first.steps:,} G steps, batch {first.batch_size}, {seeds} run{'s' * (seeds > 1)}.",
            f"Every {search.every:,} steps: {search.count} z, {search.restarts} starts of {search.steps} Adam steps "
            "each on z. A sample that D takes for a fake has an adversarial example if G makes an image that D takes "
            f"for real within {FIG1_DELTA} of it. The share is that of such samples among those that D takes for "
            "fakes. Main choice: root mean square distance, threshold at the midpoint of D's mean logits of reals and "
            "fakes.",
        ),
        tables=(_over_training(found), *_all_choices(found), *texts.divergences(found)),
        findings=tuple(_findings(name, found)),
        notes=_NOTES,
        config=texts.settings(arms, seeds) | {"search": vars(search) | {"delta": FIG1_DELTA}},
        details=texts.details(found) | {"shares": _details(found)},
        origin=texts.origin(found),
        figures={"": draw(name, found)},
    )


def runs_folder(name: Which, folder: Path) -> Path:
    """Where the runs are.

    Fig. 8 goes on with those of Fig. 1 if they lie beside it, in ``fig1``, and it has none of its own. The time that
    they took is in Fig. 1's record.
    """
    fig1 = folder.parent / "fig1"
    shares = (
        name == "fig8" and folder.name == name and (fig1 / RUNS).is_dir() and not (folder / RUNS).is_dir()
    )
    return fig1 if shares else folder


def arms_of(name: Which, quick: bool) -> tuple[Arm, ...]:
    """The models without attack and, for Fig. 8, with DAT."""
    arms = []
    for model in QUICK_MODELS if quick else tuple(MODELS):
        beginning, changes = MODELS[model]
        for end, dat in (("", ""), (DAT, "-dat")) if name == "fig8" else (("", ""),):
            config = preset(f"{beginning}{dat}-cifar10").replace(changes)
            config = (
                thin(config, QUICK_STEPS, eval__every=None) if quick else config.replace({"eval.every": None})
            )
            arms.append(Arm(model + end, config))
    return tuple(arms)


# --- numbers ---------------------------------------------------------------------------------------------------------


def shares(runs: Sequence[Trained], key: str = MAIN) -> dict[int, Runs]:
    """A share in percent at each measured step, over the runs that have it and that NaN did not end."""
    found: dict[int, list[float]] = {}
    for run in texts.whole(runs):
        for line in run.stats:
            if key in line:
                found.setdefault(line["step"], []).append(100 * line[key])
    return {step: Runs(tuple(values)) for step, values in sorted(found.items())}


def mean_share(runs: Sequence[Trained], at: Container[int] | None = None) -> Runs | None:
    """Mean over each run's measurements, in percent; with ``at`` over those at these steps."""
    return _over_measurements(runs, at, lambda values: sum(values) / len(values))


def unrest(runs: Sequence[Trained], at: Container[int] | None = None) -> Runs | None:
    """Greatest minus least of each run's measurements, in percentage points: the paper's "unstable"."""
    return _over_measurements(runs, at, lambda values: max(values) - min(values))


def _over_measurements(
    runs: Sequence[Trained], at: Container[int] | None, summary: Callable[[list[float]], float]
) -> Runs | None:
    listed = [
        [100 * line[MAIN] for line in run.stats if MAIN in line and (at is None or line["step"] in at)]
        for run in texts.whole(runs)
    ]
    values = tuple(summary(values) for values in listed if values)
    return Runs(values) if values else None


def _steps_of_all(runs: Sequence[Trained]) -> set[int]:
    """The steps at which every run has a share: where D took no sample for a fake, there is none, and a mean over all
    steps of one run says nothing beside one over some steps of another."""
    of_each = [{line["step"] for line in run.stats if MAIN in line} for run in texts.whole(runs)]
    return set.intersection(*of_each) if of_each else set()


def _over_training(found: texts.Found) -> ResultTable:
    steps = sorted({step for runs in found.values() for step in shares(runs)})
    shown = steps if len(steps) <= 5 else [steps[round(i * (len(steps) - 1) / 4)] for i in range(5)]
    columns = [Column(f"step {step:,}", 1) for step in shown] + [Column("mean", 1), Column("range", 1)]
    rows = []
    for name, runs in found.items():
        at, common = shares(runs), _steps_of_all(runs)
        cells = {f"step {step:,}": at.get(step) for step in shown}
        rows.append(Row(name, {**cells, "mean": mean_share(runs, common), "range": unrest(runs, common)}))
    title = "Samples with an adversarial example, % of those that D takes for fakes (rms, midpoint)"
    return ResultTable(title, "model", tuple(columns), tuple(rows))


def _all_choices(found: texts.Found) -> Iterator[ResultTable]:
    """What other norms and the other threshold give, all at the last step that was measured in the arm."""
    columns, rows = [], []
    for threshold in get_args(Threshold):
        columns += [Column(f"{norm}, {threshold}", 1) for norm in get_args(Norm)]
        columns.append(Column(f"taken for fakes, {threshold}", 1))
    for name, runs in found.items():
        cells: dict[str, Any] = {}
        measured = [
            step for threshold in get_args(Threshold) for step in shares(runs, f"eligible_{threshold}")
        ]
        for threshold in get_args(Threshold):
            keys = {f"{norm}, {threshold}": key_of(norm, threshold) for norm in get_args(Norm)}
            keys[f"taken for fakes, {threshold}"] = f"eligible_{threshold}"
            for head, key in keys.items():
                # A share is missing where D took no sample for a fake: that is no reason to show an earlier one.
                cells[head] = shares(runs, key).get(max(measured, default=0))
        rows.append(Row(name, cells))
    title = "At the last measurement, by norm and threshold; and samples that D takes for fakes, % of all"
    yield ResultTable(title, "model", tuple(columns), tuple(rows))


def _findings(name: Which, found: texts.Found) -> Iterator[str]:
    if name == "fig1":
        for arm, runs in found.items():
            common = _steps_of_all(runs)
            mean, spread = mean_share(runs, common), unrest(runs, common)
            if mean is not None and spread is not None:
                yield (
                    f"{arm}: on average {texts.number(mean)} % of the samples that D takes for fakes have an "
                    f"adversarial example; over the training the share moves by {texts.number(spread)} points."
                )
        return
    for what, summary in (
        ("mean share of samples with an adversarial example, %", mean_share),
        ("range of that share over the training, points", unrest),
    ):
        lower: list[bool] = []
        compared: list[str] = []
        for model in (arm for arm in found if not arm.endswith(DAT)):
            sides = found[model], found.get(model + DAT, ())
            steps = _steps_of_all([*sides[0], *sides[1]])
            plain, dat = (summary(runs, steps) for runs in sides)
            if plain is not None and dat is not None:
                lower.append(texts.lower(dat, plain))
                compared += texts.difference(f"{model}, {what}", "DAT", dat, "no attack", plain)
        if lower:
            yield (
                f"The {what.partition(',')[0]}, over the steps at which both sides were measured, is lower with DAT "
                f"for {texts.counted(lower)} models."
            )
            yield from compared


def _details(found: texts.Found) -> list[dict[str, Any]]:
    keys = [key_of(norm, threshold) for norm in get_args(Norm) for threshold in get_args(Threshold)]
    keys += [f"eligible_{threshold}" for threshold in get_args(Threshold)]
    return [
        {
            "arm": name,
            "seed": run.seed,
            "measurements": [
                {"step": line["step"], **{key: line[key] for key in keys if key in line}}
                for line in run.stats
                if any(key in line for key in keys)
            ],
        }
        for name, runs in found.items()
        for run in runs
    ]


def draw(name: Which, found: texts.Found) -> Figure:
    """Fig. 1: all models in one panel. Fig. 8: a panel for each model, with and without DAT."""
    models = [arm for arm in found if not arm.endswith(DAT)] or list(found)
    panels = [list(found)] if name == "fig1" else [[model, model + DAT] for model in models]
    figure = Figure(figsize=(4.4 * len(panels), 3.4), layout="constrained")
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        for colour, arm in zip(COLOURS, panel, strict=False):
            at = shares(found.get(arm, ()))
            if not at:
                continue
            label = arm if name == "fig1" else "with DAT" if arm.endswith(DAT) else "without"
            band = [(runs.mean, runs.std or 0.0) for runs in at.values()]
            draw_band(axes, list(at), band, colour, label, limits=(0, 100), marker="o")
        axes.set_ylim(0, 100)
        axes.set_xlabel("G steps", color=INK)
        if i == 0:
            axes.set_ylabel("samples with an adversarial example, %", color=INK)
        if name == "fig8":
            axes.set_title(panel[0], color=INK, fontsize=10)
        if axes.get_lines():
            axes.legend(frameon=False, labelcolor=INK, fontsize=9)
        style_axes(axes)
    return figure
