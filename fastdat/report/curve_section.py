"""The statistics of all runs over their steps, a chart a quantity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fastdat.report.charts import draw
from fastdat.report.curves import Line, wants_log, window
from fastdat.report.markup import Markup, element, join
from fastdat.report.runs import RunRecord
from fastdat.report.score_table import Kind, Series, kinds_of
from fastdat.report.tables import run_name


@dataclass(frozen=True)
class _Quantity:
    """A chart: a key of stats.jsonl, and the key of the same of the fakes, drawn dashed; both times ``scale``."""

    title: str
    unit: str
    key: str
    fakes: str | None = None
    scale: float = 1.0

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key, self.fakes) if self.fakes else (self.key,)


_SIDES = "solid: reals, dashed: fakes"
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
_KNOWN = {"step", "seconds"} | {key for group in _GROUPS.values() for chart in group for key in chart.keys}


def curves(runs: Sequence[RunRecord], all_series: Sequence[Mapping[Kind, Series]]) -> Markup:
    """Charts in groups, under a legend whose buttons show and hide runs."""
    groups = {"Scores": list(_score_charts(runs, all_series))}
    for name, quantities in _GROUPS.items():
        groups[name] = [
            chart for i, q in enumerate(quantities) if (chart := _chart(runs, q, f"{name[:2].lower()}{i}"))
        ]
    groups["Further statistics"] = [
        chart for i, q in enumerate(_further(runs)) if (chart := _chart(runs, q, f"further{i}"))
    ]
    if not any(groups.values()):
        return element("p", "Nothing to draw yet: no run has statistics or scores.")
    parts = [
        join([element("h4", name), element("div", *charts, class_="charts")])
        for name, charts in groups.items()
        if charts
    ]
    return join([_legend(runs), _smoothing(runs), *parts])


def _legend(runs: Sequence[RunRecord]) -> Markup:
    buttons = (
        element("button", run_name(runs, i), type="button", data_run=i, aria_pressed="true", disabled=True)
        for i in range(len(runs))
    )
    return element(
        "div", *buttons, class_="legend", role="group", aria_label="Runs in the charts: show or hide"
    )


def _smoothing(runs: Sequence[RunRecord]) -> Markup:
    words = []
    for run in runs:
        count = len(run.stats)
        if count >= 20:
            steps = (run.stats[-1]["step"] - run.stats[0]["step"]) / (count - 1)
            words.append(f"{run.label}: {window(count)} values, {window(count) * steps:,.0f} G steps")
    if not words:
        return Markup("")
    spans = "; ".join(dict.fromkeys(words))
    intro = "Faint: every line of stats.jsonl. Strong: their running mean, centred (over fewer values at both ends): "
    return element(
        "p",
        f"{intro}{spans}. Scores, and runs with fewer than 20 lines, are drawn as they are.",
        class_="quiet",
    )


def _chart(runs: Sequence[RunRecord], quantity: _Quantity, key: str) -> Markup | None:
    lines = []
    for number, run in enumerate(runs):
        for i, name in enumerate(quantity.keys):
            steps, values = run.values(name)
            if values:
                lines.append(Line(number, steps, [v * quantity.scale for v in values], dashed=i == 1))
    note = _SIDES if quantity.fakes else ""
    return _card(runs, quantity.title, quantity.unit, note, lines, key) if lines else None


def _score_charts(runs: Sequence[RunRecord], all_series: Sequence[Mapping[Kind, Series]]) -> Iterator[Markup]:
    for number, kind in enumerate(kinds_of(all_series)):
        if all(len(series[kind].steps) < 2 for series in all_series if kind in series):
            continue  # no curve: the tables have it
        lines = [
            Line(i, series[kind].steps, series[kind].values, smooth=False)
            for i, series in enumerate(all_series)
            if kind in series
        ]
        better = {1: "more is better", -1: "less is better"}.get(kind.better, "")
        note = "; ".join(part for part in (kind.details, better) if part)
        yield _card(runs, kind.title, "score", note, lines, f"score{number}")


def _card(
    runs: Sequence[RunRecord], title: str, unit: str, note: str, lines: Sequence[Line], key: str
) -> Markup:
    log = "log scale" if wants_log(lines) else ""
    caption = "; ".join(part for part in (note, log) if part)
    described = "; ".join(
        f"{runs[line.run].label}{' (dashed)' * line.dashed} {line.in_words()}" for line in lines
    )
    drawing = draw(
        key, f"{title} ({unit}) over G steps. {described}.", f"{unit} (log)" if log else unit, lines
    )
    return element("figure", element("h3", title), element("figcaption", caption), drawing, class_="card")


def _further(runs: Sequence[RunRecord]) -> list[_Quantity]:
    """Keys of stats.jsonl that this page does not know, as they are."""
    keys = dict.fromkeys(key for run in runs for key in (run.stats[-1] if run.stats else {}))
    return [_Quantity(key, "value", key) for key in keys if key not in _KNOWN]
