"""The colour of each run, on a light and on a dark page: the runs of one group have shades of one hue."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

from fastdat.report.groups import Group

# Okabe and Ito's hues, which stay distinct with any colour vision. They are darkened for white and lightened for
# black, so that their contrast is at least 4.5:1.
_LIGHT = ("#0065a3", "#b34a00", "#007a55", "#a3336f", "#6b5600", "#4a4fc4", "#b01f2e", "#3d4451")
_DARK = ("#6cb8f0", "#f5a35c", "#4fd0a5", "#eb90c0", "#d9c04d", "#a5a9ff", "#ff8f8f", "#c3cad6")

_FARTHEST = 0.5  # the share of black, or of white on a dark page, in the colour of the last run of a group


def run_colours(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Hexadecimal colours of all runs, under the keys ``"light"`` and ``"dark"``: a hue for each group.

    The shades of a group are spread evenly over its runs. With more than about thirty of them some are equal.
    """
    places = sorted(
        (run, number, _FARTHEST * place / max(1, len(group.members) - 1))
        for number, group in enumerate(groups)
        for place, run in enumerate(group.members)
    )
    shades = [(number, part) for _, number, part in places]
    return {
        "light": [_mixed(_colour(_LIGHT, number, lightness=0.26), 0, part) for number, part in shades],
        "dark": [_mixed(_colour(_DARK, number, lightness=0.72), 255, part) for number, part in shades],
    }


def _colour(chosen: tuple[str, ...], number: int, lightness: float) -> str:
    """The chosen colour of a group; beyond the chosen ones, hues that the golden ratio spreads over the circle."""
    if number < len(chosen):
        return chosen[number]
    red, green, blue = colorsys.hls_to_rgb(number * 0.618034 % 1, lightness, 0.6)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _mixed(colour: str, other: int, part: float) -> str:
    """``colour`` with ``part`` of grey ``other`` (0 is black, 255 is white) in it."""
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round((1 - part) * channel + part * other):02x}" for channel in channels)
