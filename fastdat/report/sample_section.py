"""Sample grids over time beside reals, run by run."""

from __future__ import annotations

from collections.abc import Sequence

from fastdat.report.embedded import GRIDS, Grids, Picture
from fastdat.report.markup import Markup, element, join
from fastdat.report.runs import RunRecord
from fastdat.report.tables import run_name

_PIXELS = 300  # narrower grids are enlarged, pixel by pixel


def samples(runs: Sequence[RunRecord], grids: Sequence[Grids]) -> Markup:
    """A card a run, with a slider over its grids; without JavaScript the last grid is shown."""
    if not any(shown.pictures or shown.reals for shown in grids):
        return element("p", "No sample grids yet.")
    switch = element(
        "label",
        element("input", type="checkbox", id="together", checked=True),
        "Move all runs together, each to its grid nearest to the step",
        class_="together",
        hidden=True,
    )
    intro = "The same noise at every step of a run."
    hint = element(
        "noscript", element("p", "Each run's last grid; with JavaScript, a slider goes through all.")
    )
    cards = [_card(runs, number, shown) for number, shown in enumerate(grids)]
    return join([element("p", intro, class_="quiet"), hint, switch, element("div", *cards, class_="runs")])


def _card(runs: Sequence[RunRecord], number: int, shown: Grids) -> Markup:
    label = runs[number].label
    heading = element("h3", run_name(runs, number), id=f"grids{number}")
    if not shown.pictures:
        left = element("div", element("p", "No sample grids yet."))
    else:
        images = [
            _image(
                picture, f"Samples of {label} at step {step:,}", i < len(shown.pictures) - 1, data_step=step
            )
            for i, (step, picture) in enumerate(zip(shown.steps, shown.pictures, strict=True))
        ]
        caption = element(
            "figcaption", "Samples, ", element("output", f"step {shown.steps[-1]:,}", aria_live="polite")
        )
        left = element("figure", caption, *images)
    right = Markup("")
    if shown.reals:
        right = element(
            "figure",
            element("figcaption", "Reals"),
            _image(shown.reals, f"Training images of {label}", False),
        )
    pair = element("div", left, right, class_="pair")
    left_out = (
        f"{len(shown.pictures)} of {len(shown.pictures) + shown.left_out} grids, evenly chosen; "
        f"{shown.left_out} left out (at most {GRIDS} a run)."
        if shown.left_out
        else ""
    )
    note = element("p", left_out, class_="quiet") if left_out else Markup("")
    controls = _controls(label, len(shown.pictures)) if shown.pictures else Markup("")
    name = "card grids" if shown.pictures else "card"
    return element(
        "div", heading, controls, pair, note, class_=name, role="group", aria_labelledby=f"grids{number}"
    )


def _controls(label: str, count: int) -> Markup:
    return element(
        "div",
        element("button", "Earlier", type="button", aria_label=f"Earlier grid of {label}"),
        element(
            "input",
            type="range",
            min=0,
            max=count - 1,
            value=count - 1,
            step=1,
            aria_label=f"Step of the grid of {label}",
        ),
        element("button", "Later", type="button", aria_label=f"Later grid of {label}"),
        class_="controls",
        hidden=True,
    )


def _image(picture: Picture, alt: str, hidden: bool, data_step: int | None = None) -> Markup:
    return element(
        "img",
        src=picture.uri,
        alt=alt,
        width=picture.width,
        height=picture.height,
        class_="pixels" if picture.width <= _PIXELS else None,
        data_step=data_step,
        hidden=hidden,
    )
