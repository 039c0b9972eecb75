"""The section "Curves": scores and statistics of all runs over their steps, one chart per quantity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fastdat.report.charts import Drawing, draw
from fastdat.report.curves import Line, window
from fastdat.report.runs import RunRecord
from fastdat.report.score_names import ScoreName
from fastdat.report.score_table import Kind, Series
from fastdat.util.term_names import is_of_term, term_of


@dataclass(frozen=True)
class Chart:
    """A chart and its texts.

    Args:
        group: what it belongs to, such as ``Attack``.
        title: what is drawn.
        score: the score that is drawn, in place of a title; None if it is no score.
        caption: the unit, and how to read the chart.
        description: the chart in words, for readers who do not see it.
        drawing: the curves and axes.
    """

    group: str
    title: str
    score: ScoreName | None
    caption: str
    description: str
    drawing: Drawing


@dataclass(frozen=True)
class Curves:
    """What ``templates/curves.html`` shows.

    Args:
        charts: the scores first.
        smoothing: the width of each run's running mean, in words; empty if none is drawn.
    """

    charts: Sequence[Chart]
    smoothing: str


@dataclass(frozen=True)
class _Quantity:
    """What one chart shows.

    Args:
        title, unit: in words.
        key: the key in stats.jsonl.
        fakes: the key of the same quantity for fakes, drawn dashed; None if there is none.
        scale: factor from the recorded value to ``unit``.
    """

    title: str
    unit: str
    key: str
    fakes: str | None = None
    scale: float = 1.0

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key, self.fakes) if self.fakes else (self.key,)


_STEEPNESS = "‖∂D/∂x‖₂, 1 / unit of data"
_OVER_SAMPLES = (("mean", "mean"), ("95 %", "q95"), ("greatest", "max"))

_GROUPS = {
    "Losses and logits": (
        _Quantity("Loss of D", "loss", "loss_d"),
        _Quantity("Loss of G", "loss", "loss_g"),
        _Quantity("Logits of D as trained on", "logit, mean", "logits_real", "logits_fake"),
        _Quantity("Logits of D on clean samples", "logit, mean", "clean_logits_real", "clean_logits_fake"),
    ),
    "Attack": (
        _Quantity("Size of the perturbation", "RMS of δ, units of data", "delta_rms_real", "delta_rms_fake"),
        _Quantity("Input gradient", "mean ‖∂A/∂x‖₂, 1 / unit of data", "grad_norm_real", "grad_norm_fake"),
        _Quantity("Clipped elements", "% of elements", "clipped_real", "clipped_fake", scale=100),
        _Quantity(
            "Objective of D lowered by the attack", "% of attacked samples", "penalty_fraction", scale=100
        ),
    ),
    "Robustness of D": (
        _Quantity(
            "Samples of G with an adversarial example", "% of those that D rejects", "latent_share", scale=100
        ),
        _Quantity("Samples of G that D rejects", "% of samples", "latent_eligible", scale=100),
        _Quantity("Threshold of D's verdict", "logit", "verdict_threshold"),
        _Quantity("PGD until the verdict flips", "steps, mean", "pgd_steps_real", "pgd_steps_fake"),
        _Quantity(
            "Verdicts that PGD flips", "% of samples", "pgd_flipped_real", "pgd_flipped_fake", scale=100
        ),
        *(
            _Quantity(
                f"Steepness of D, {words}", _STEEPNESS, f"lipschitz_real_{what}", f"lipschitz_fake_{what}"
            )
            for words, what in _OVER_SAMPLES
        ),
        *(
            _Quantity(
                f"Steepness of D between reals and fakes, {words}", _STEEPNESS, f"lipschitz_between_{what}"
            )
            for words, what in _OVER_SAMPLES
        ),
        _Quantity("Largest singular value of D's layers", "greatest of all layers", "sigma_max"),
        _Quantity("Largest singular values of D's layers", "geometric mean over layers", "sigma_mean"),
        _Quantity(
            "Penalty case of Eq. (13)", "% of samples", "penalty_case_real", "penalty_case_fake", scale=100
        ),
    ),
    "Speed": (
        _Quantity("Speed", "G steps per second", "it_per_s"),
        _Quantity("Learning rate", "learning rate", "lr"),
    ),
}
_KNOWN_KEYS = {"step", "seconds"} | {
    key for group in _GROUPS.values() for chart in group for key in chart.keys
}


def curves(
    runs: Sequence[RunRecord],
    all_series: Sequence[Mapping[Kind, Series]],
    names: Mapping[Kind, ScoreName],
) -> Curves:
    """Charts of the scores ``all_series``, called ``names``, and of all statistics of ``runs``."""
    charts = list(_score_charts(runs, all_series, names))
    known = list(_GROUPS.items())
    groups = [*known[:-1], ("Regularizers", _quantities_of_terms(runs)), known[-1]]
    for group, quantities in (*groups, ("Further statistics", _further_quantities(runs))):
        charts += _statistic_charts(runs, group, quantities)
    return Curves(charts, _smoothing(runs))


def _smoothing(runs: Sequence[RunRecord]) -> str:
    """The width of the running means, in values and in G steps; for each run, if they differ."""
    widths = {}
    for run in runs:
        count = len(run.stats)
        if count >= 20:
            steps = (run.stats[-1]["step"] - run.stats[0]["step"]) / (count - 1)
            widths[run.label] = f"{window(count)} values, {window(count) * steps:,.0f} G steps"
    if len(set(widths.values())) == 1:
        return next(iter(widths.values()))
    return "; ".join(f"{label}: {width}" for label, width in widths.items())


def _statistic_charts(
    runs: Sequence[RunRecord], group: str, quantities: Sequence[_Quantity]
) -> Iterator[Chart]:
    """A chart for each quantity that some run has recorded."""
    for quantity in quantities:
        lines = []
        for run_number, run in enumerate(runs):
            for i, name in enumerate(quantity.keys):
                steps, values = run.values(name)
                if values:
                    scaled = [value * quantity.scale for value in values]
                    lines.append(Line(run_number, steps, scaled, dashed=i == 1))
        note = "solid: reals, dashed: fakes" if quantity.fakes else ""
        if lines:
            yield _chart(runs, group, quantity.title, quantity.unit, note, lines)


def _score_charts(
    runs: Sequence[RunRecord], all_series: Sequence[Mapping[Kind, Series]], names: Mapping[Kind, ScoreName]
) -> Iterator[Chart]:
    """A chart for each kind of score. A score of a single step is only in the tables: it makes no curve."""
    for kind, name in names.items():
        if all(len(series[kind].steps) < 2 for series in all_series if kind in series):
            continue
        # The deviation of IS over its splits is no error of the score, so it is not drawn.
        lines = [
            Line(
                number,
                series[kind].steps,
                series[kind].values,
                smooth=False,
                errors=series[kind].errors if kind.name == "kid" else (),
            )
            for number, series in enumerate(all_series)
            if kind in series
        ]
        band = "band: standard error" if any(line.stretches_with_errors() for line in lines) else ""
        note = "; ".join(part for part in (name.direction, band) if part)
        yield _chart(runs, "Scores", name.label, "", note, lines, name)


def _chart(
    runs: Sequence[RunRecord],
    group: str,
    title: str,
    unit: str,
    note: str,
    lines: Sequence[Line],
    score: ScoreName | None = None,
) -> Chart:
    drawing = draw(lines)
    values = "; ".join(
        f"{runs[line.run].label}{' (dashed)' * line.dashed} {line.description()}" for line in lines
    )
    return Chart(
        group=group,
        title=title,
        score=score,
        caption="; ".join(part for part in (unit, note, "log scale" if drawing.log else "") if part),
        description=f"{title} ({unit or 'score'}) over G steps. {values}.",
        drawing=drawing,
    )


def _further_quantities(runs: Sequence[RunRecord]) -> list[_Quantity]:
    """The keys of stats.jsonl that no group names: what a user's callbacks measured, in some lines or in all."""
    keys = [key for key in _keys(runs) if key not in _KNOWN_KEYS and not is_of_term(key)]
    return [_Quantity(key, "value", key) for key in keys]


def _quantities_of_terms(runs: Sequence[RunRecord]) -> list[_Quantity]:
    """What regularizers measured: the value of each, then its gradient norm where it has one."""
    found = []
    for key in filter(is_of_term, _keys(runs)):
        name, is_norm = term_of(key)
        what = (
            ("gradient norm", "mean ‖∂D/∂x‖₂, 1 / unit of data")
            if is_norm
            else ("value", "weight times value")
        )
        found.append(_Quantity(f"{name}: {what[0]}", what[1], key))
    return found


def _keys(runs: Sequence[RunRecord]) -> list[str]:
    """All keys of stats.jsonl, in the order in which they come first."""
    return list(dict.fromkeys(key for run in runs for line in run.stats for key in line))
