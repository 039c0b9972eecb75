"""The section "Curves": scores and statistics of all runs over their steps, one chart per quantity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fastdat.report.charts import Drawing, draw
from fastdat.report.curves import Line, wants_log_scale, window
from fastdat.report.runs import RunRecord
from fastdat.report.score_table import Kind, Series, sorted_kinds


@dataclass(frozen=True)
class Chart:
    """A chart and its texts.

    Args:
        title: what is drawn.
        caption: how to read it; may be empty.
        description: the chart in words, for readers who do not see it.
        drawing: the curves and axes.
    """

    title: str
    caption: str
    description: str
    drawing: Drawing


@dataclass(frozen=True)
class Curves:
    """What ``templates/curves.html`` shows.

    Args:
        groups: heading -> charts; no group is empty.
        smoothing: the width of each run's running mean, in words; empty if none is drawn.
    """

    groups: Mapping[str, Sequence[Chart]]
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
        _Quantity("Penalty case of Eq. (13)", "% of attacked samples", "penalty_fraction", scale=100),
    ),
    "Speed": (
        _Quantity("Speed", "G steps per second", "it_per_s"),
        _Quantity("Learning rate", "learning rate", "lr"),
    ),
}
_KNOWN_KEYS = {"step", "seconds"} | {
    key for group in _GROUPS.values() for chart in group for key in chart.keys
}


def curves(runs: Sequence[RunRecord], all_series: Sequence[Mapping[Kind, Series]]) -> Curves:
    """Charts of the scores ``all_series`` and of all statistics of ``runs``."""
    groups = {"Scores": list(_score_charts(runs, all_series))}
    for name, quantities in _GROUPS.items():
        groups[name] = list(_statistic_charts(runs, quantities, key=name[:2].lower()))
    groups["Further statistics"] = list(_statistic_charts(runs, _further_quantities(runs), key="further"))
    return Curves({name: charts for name, charts in groups.items() if charts}, _smoothing(runs))


def _smoothing(runs: Sequence[RunRecord]) -> str:
    """For each run the width of its running mean, in values and in G steps."""
    widths = []
    for run in runs:
        count = len(run.stats)
        if count >= 20:
            steps = (run.stats[-1]["step"] - run.stats[0]["step"]) / (count - 1)
            widths.append(f"{run.label}: {window(count)} values, {window(count) * steps:,.0f} G steps")
    return "; ".join(dict.fromkeys(widths))


def _statistic_charts(
    runs: Sequence[RunRecord], quantities: Sequence[_Quantity], key: str
) -> Iterator[Chart]:
    """A chart for each quantity that some run has recorded."""
    for number, quantity in enumerate(quantities):
        lines = []
        for run_number, run in enumerate(runs):
            for i, name in enumerate(quantity.keys):
                steps, values = run.values(name)
                if values:
                    scaled = [value * quantity.scale for value in values]
                    lines.append(Line(run_number, steps, scaled, dashed=i == 1))
        note = "solid: reals, dashed: fakes" if quantity.fakes else ""
        if lines:
            yield _chart(runs, quantity.title, quantity.unit, note, lines, f"{key}{number}")


def _score_charts(runs: Sequence[RunRecord], all_series: Sequence[Mapping[Kind, Series]]) -> Iterator[Chart]:
    """A chart for each kind of score. A score of a single step is only in the tables: it makes no curve."""
    for number, kind in enumerate(sorted_kinds(all_series)):
        if all(len(series[kind].steps) < 2 for series in all_series if kind in series):
            continue
        lines = [
            Line(i, series[kind].steps, series[kind].values, smooth=False)
            for i, series in enumerate(all_series)
            if kind in series
        ]
        better = {1: "more is better", -1: "less is better"}.get(kind.better, "")
        note = "; ".join(part for part in (kind.details, better) if part)
        yield _chart(runs, kind.title, "score", note, lines, f"score{number}")


def _chart(
    runs: Sequence[RunRecord], title: str, unit: str, note: str, lines: Sequence[Line], key: str
) -> Chart:
    """``unit`` becomes part of the drawing, so it must be a constant; ``title`` and ``note`` may hold any text."""
    log = wants_log_scale(lines)
    values = "; ".join(
        f"{runs[line.run].label}{' (dashed)' * line.dashed} {line.description()}" for line in lines
    )
    return Chart(
        title=title,
        caption="; ".join(part for part in (note, "log scale" if log else "") if part),
        description=f"{title} ({unit}) over G steps. {values}.",
        drawing=draw(key, f"{unit} (log)" if log else unit, lines),
    )


def _further_quantities(runs: Sequence[RunRecord]) -> list[_Quantity]:
    """The keys of stats.jsonl that no group names, such as the statistics of a user's own loss."""
    keys = dict.fromkeys(key for run in runs for key in (run.stats[-1] if run.stats else {}))
    return [_Quantity(key, "value", key) for key in keys if key not in _KNOWN_KEYS]
