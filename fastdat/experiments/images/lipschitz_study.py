"""The claim of Sec. III-C, measured: does DAT make D less steep while it trains, and is its residual mostly >= 0?

The paper proves it to first order and shows no measurement. Here D's input gradients at reals, at fakes and between
them, the largest singular values of its layers, and the share of samples in the penalty case of Eq. (13) are measured
during the training on CIFAR-10: without attack, with 0-GP, with DAT, and with second-order DAT. The attack is fastdat's
default, which differs from Eqs. (12) to (15): it follows D's logits, and has one sign for the whole batch. Of second
order means that the gradient of the loss flows through the perturbation as well. In full length there is an arm whose
sign is each sample's own, as in Eq. (13).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fastdat.experiments.catalogue import Options
from fastdat.experiments.figure_style import INK, draw_band, look, style_axes
from fastdat.experiments.images import study_texts as texts
from fastdat.experiments.images.image_study import Arm, Trained, arms_wanted, train_all
from fastdat.experiments.images.thin_runs import WIDTH, thin
from fastdat.experiments.outcome import Column, Outcome, ResultTable, Row, Runs
from fastdat.experiments.spent_time import timed
from fastdat.training.presets import preset

ARMS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "DCGAN, no attack": ("dcgan-cifar10", {}),
    "DCGAN, 0-GP": ("dcgan-0gp-cifar10", {}),
    "DCGAN, DAT": ("dcgan-dat-cifar10", {}),
    "DCGAN, second-order DAT": ("dcgan-dat-cifar10", {"dat.second_order": True}),
    "DCGAN, DAT, sign per sample": ("dcgan-dat-cifar10", {"dat.reduction": "sample"}),
    "SNGAN, no attack": ("sngan-cifar10", {}),
    "SNGAN, DAT": ("sngan-dat-cifar10", {}),
}
QUICK_ARMS = tuple(ARMS)[:4]
QUICK_STEPS, EVERY = 600, 100
SAMPLES, QUICK_SAMPLES = 512, 128

_PLACES = {"real": "reals", "fake": "fakes", "between": "between"}
_OVER_SAMPLES = {"mean": "mean", "q95": "95 %", "max": "greatest"}
PENALTY = {"reals": "penalty_case_real", "fakes": "penalty_case_fake"}
LOWERED = "penalty_fraction"
_PLAIN = "no attack"
KEPT = 200
"""Points of a curve in the record."""

_NOTES = (
    "The Lipschitz constant itself cannot be computed. The greatest input gradient found is a lower bound of it.",
    "Logits of different losses and nets have different scales. Compare the arms of one model with each other.",
    "A singular value of a convolution is that of its matrix (out, in * k * k), as in SNGAN: not the norm of the "
    "operator. Batch norm rescales what convolutions give, so that their singular values alone do not bound D.",
    "0-GP penalises the gradient at reals with weight 10; the paper does not print its weight.",
    "A real is in the penalty case of Eq. (13) if D(x_r) >= mean D(x_f), a fake if D(x_f) <= mean D(x_r): the paper's "
    "residual >= 0, in logits and for each sample by itself. There Eq. (13) penalises D's gradient, and elsewhere it "
    "rewards it. Every D can be asked, also one without DAT.",
    "With fastdat's default attack one sign holds for the whole batch, so that all samples are penalised as soon as "
    "the mean logit of the reals is above that of the fakes. So the share of samples whose objective the attack lowers "
    "is not the share in the penalty case; runs with DAT record it in training.",
    "D is evaluated: batch norm uses its running statistics.",
)


@timed
def run(options: Options, folder: Path) -> Outcome:
    """Train all arms with the monitor on, and compare what it measured."""
    arms, seeds = arms_wanted(arms_of(options.quick), options.only), options.seeds or 3
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
            "same ones each time: the norm of the gradient of D's logit, and D's logits for the penalty case. Between: "
            "at one point of the line from each real to a fake.",
        ),
        tables=(_at_the_end(found), _over_training(found), *texts.divergences(found)),
        findings=(*_compared(found), *_penalty(found)),
        notes=_NOTES,
        config=texts.settings(arms, seeds),
        details=texts.details(found) | {"curves": _details(found)},
        origin=texts.origin(found),
        figures={"": draw(found)},
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
            "monitor.every": EVERY,
            "monitor.samples": QUICK_SAMPLES if quick else SAMPLES,
            "monitor.latent": False,
            "monitor.pgd": False,
        }
        arms.append(Arm(name, config.replace(monitor)))
    return tuple(arms)


# --- numbers ---------------------------------------------------------------------------------------------------------


def curve(runs: Sequence[Trained], key: str) -> dict[int, Runs]:
    """A number of stats.jsonl at each step that has it, over the runs that NaN did not end."""
    found: dict[int, list[float]] = {}
    for run in texts.whole(runs):
        for line in run.stats:
            if key in line:
                found.setdefault(line["step"], []).append(line[key])
    return {step: Runs(tuple(values)) for step, values in sorted(found.items())}


def last(runs: Sequence[Trained], key: str) -> Runs | None:
    """The number at its last step, over the runs that NaN did not end."""
    at = curve(runs, key)
    return at[max(at)] if at else None


def mean(runs: Sequence[Trained], key: str) -> Runs | None:
    """Its mean over each run that NaN did not end."""
    return _summary(runs, key, lambda values: sum(values) / len(values))


def _summary(runs: Sequence[Trained], key: str, summary: Callable[[list[float]], float]) -> Runs | None:
    listed = [[line[key] for line in run.stats if key in line] for run in texts.whole(runs)]
    values = tuple(summary(values) for values in listed if values)
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
    columns += [
        Column(f"{side} in the penalty case, {what}", 1) for side in PENALTY for what in ("%", "least, %")
    ]
    columns.append(Column("objective lowered by the attack, %", 1))
    rows = []
    for name, runs in found.items():
        cells = {f"{place}, mean": mean(runs, f"lipschitz_{key}_mean") for key, place in _PLACES.items()}
        for side, key in PENALTY.items():
            cells[f"{side} in the penalty case, %"] = percent(runs, key)
            cells[f"{side} in the penalty case, least, %"] = percent(runs, key, least=True)
        cells["objective lowered by the attack, %"] = percent(runs, LOWERED)
        rows.append(Row(name, cells))
    title = "Mean over the training: norm of D's input gradient, and samples in the penalty case"
    return ResultTable(title, "arm", tuple(columns), tuple(rows))


def percent(runs: Sequence[Trained], key: str, *, least: bool = False) -> Runs | None:
    """A share of samples in percent: the mean over each run, or its least line of stats.jsonl."""
    of_run = min if least else (lambda values: sum(values) / len(values))
    return _summary(runs, key, lambda values: 100 * of_run(values))


def _compared(found: texts.Found) -> Iterator[str]:
    """The arms of each model against that without attack: mean gradient at the last step, at all three places."""
    for model, arms in _by_model(found).items():
        for key, place in _PLACES.items():
            at = {what: last(runs, f"lipschitz_{key}_mean") for what, runs in arms.items()}
            plain = at.pop(_PLAIN, None)
            yield from texts.ranking(f"{model}, mean input gradient, {place}, last step", at, _PLAIN, plain)


def _penalty(found: texts.Found) -> Iterator[str]:
    """Whether the residual is >= 0 "in most cases"."""
    for model, arms in _by_model(found).items():
        said, most = [], []
        for what, runs in arms.items():
            shares = {side: percent(runs, key) for side, key in PENALTY.items()}
            measured = {side: share for side, share in shares.items() if share is not None}
            if measured:
                of_sides = " and ".join(f"{texts.number(s)} % of the {side}" for side, s in measured.items())
                said.append(f"{what} {of_sides}")
                most.append(all(share.mean > 50 for share in measured.values()))
        if said:
            yield (
                f"{model}, samples in the penalty case, mean over the training: {'; '.join(said)}. It is most of the "
                f"reals and most of the fakes in {texts.counted(most)} arms."
            )


def _by_model(found: texts.Found) -> dict[str, dict[str, Sequence[Trained]]]:
    """Model -> what D is trained with -> its runs, from the names of the arms."""
    models: dict[str, dict[str, Sequence[Trained]]] = {}
    for name, runs in found.items():
        model, _, what = name.partition(", ")
        models.setdefault(model, {})[what] = runs
    return models


def _details(found: texts.Found) -> dict[str, Any]:
    """All curves, with at most :data:`KEPT` points each; the runs' stats.jsonl have all of them."""
    keys = [f"lipschitz_{place}_{what}" for place in _PLACES for what in _OVER_SAMPLES]
    keys += ["sigma_max", "sigma_mean", *PENALTY.values(), LOWERED]
    return {
        name: [
            {
                "seed": run.seed,
                **{key: _thinned([[s["step"], s[key]] for s in run.stats if key in s]) for key in keys},
            }
            for run in runs
        ]
        for name, runs in found.items()
    }


def _thinned(points: list[Any]) -> list[Any]:
    """The last point, and every n-th one before it."""
    return points[::-1][:: -(-len(points) // KEPT) or 1][::-1]


# --- the figure ------------------------------------------------------------------------------------------------------


def draw(found: texts.Found) -> Figure:
    """Over the training: mean gradient at the three places, greatest singular value, and the penalty shares."""
    panels = [(f"lipschitz_{key}_mean", f"gradient, {place}, mean", 1.0) for key, place in _PLACES.items()]
    panels.append(("sigma_max", "greatest sigma of a layer", 1.0))
    panels += [(key, f"{side} in the penalty case, %", 100.0) for side, key in PENALTY.items()]
    figure = Figure(figsize=(12.6, 6.4), layout="constrained")
    for i, (key, title, scale) in enumerate(panels):
        axes = figure.add_subplot(2, 3, i + 1)
        for k, (name, runs) in enumerate(found.items()):
            colour, style = look(k)
            at = curve(runs, key)
            if at:
                band = [(scale * runs.mean, scale * (runs.std or 0.0)) for runs in at.values()]
                draw_band(axes, list(at), band, colour, name, marker=".", style=style)
        axes.set_title(title, color=INK, fontsize=10)
        axes.set_xlabel("G steps", color=INK)
        if key in PENALTY.values():
            axes.set_ylim(0, 100)
        elif i == 0:
            axes.legend(frameon=False, labelcolor=INK, fontsize=9)
        style_axes(axes)
    return figure
