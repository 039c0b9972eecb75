"""The colour of each run, on a light and on a dark page."""

from __future__ import annotations

import colorsys

# Okabe and Ito's hues, which stay distinct with any colour vision. They are darkened for white and lightened for
# black, so that their contrast is at least 4.5:1.
_LIGHT = ("#0065a3", "#b34a00", "#007a55", "#a3336f", "#6b5600", "#4a4fc4", "#b01f2e", "#3d4451")
_DARK = ("#6cb8f0", "#f5a35c", "#4fd0a5", "#eb90c0", "#d9c04d", "#a5a9ff", "#ff8f8f", "#c3cad6")


def run_colours(count: int) -> dict[str, list[str]]:
    """Hexadecimal colours of ``count`` runs, under the keys ``"light"`` and ``"dark"``."""
    return {
        "light": [_colour(_LIGHT, i, lightness=0.32) for i in range(count)],
        "dark": [_colour(_DARK, i, lightness=0.72) for i in range(count)],
    }


def _colour(chosen: tuple[str, ...], number: int, lightness: float) -> str:
    """The chosen colour of a run; beyond the chosen ones, hues that the golden ratio spreads over the circle."""
    if number < len(chosen):
        return chosen[number]
    red, green, blue = colorsys.hls_to_rgb(number * 0.618034 % 1, lightness, 0.6)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
