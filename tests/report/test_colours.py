"""The colours of runs: a hue for each group, a shade of it for each of its runs."""

import colorsys
import itertools

from fastdat.report.colours import run_colours
from fastdat.report.groups import Group

PAGES = {"light": (255, 255, 255), "dark": (0x1C, 0x21, 0x2A)}


def channels(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


def hue(colour: str) -> float:
    red, green, blue = (channel / 255 for channel in channels(colour))
    return colorsys.rgb_to_hls(red, green, blue)[0]


def luminance(rgb: tuple[int, int, int]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_runs_of_a_group_have_shades_of_one_hue() -> None:
    groups = [Group("a", [0, 3, 4], "012"), Group("b", [1], "0"), Group("c", [2, 5], "01")]
    for colours in run_colours(groups).values():
        assert len(set(colours)) == 6
        for group in groups:
            hues = [hue(colours[member]) for member in group.members]
            assert max(hues) - min(hues) < 0.02
        assert len({round(hue(colours[group.members[0]]), 1) for group in groups}) == 3


def test_all_colours_contrast_with_the_page() -> None:
    """With a ratio of at least 4.5:1 (WCAG 1.4.3), also beyond the colours that were chosen by hand."""
    groups = [Group(str(i), range(3 * i, 3 * i + 3), "012") for i in range(14)]
    for theme, colours in run_colours(groups).items():
        page = luminance(PAGES[theme])
        for colour in colours:
            light, dark = sorted((luminance(channels(colour)), page), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (theme, colour)


def test_runs_of_a_large_group_have_shades_of_their_own() -> None:
    seeds = [str(seed) for seed in range(20)]
    groups = [Group(str(i), range(20 * i, 20 * i + 20), seeds) for i in range(14)]
    for colours in run_colours(groups).values():
        for group in groups:
            assert len({colours[member] for member in group.members}) == 20


def test_shades_are_spread_over_the_group() -> None:
    """Four runs are as far apart as can be, not four of the shades that forty would have."""
    for theme, sign in (("light", -1), ("dark", 1)):
        colours = run_colours([Group("a", range(4), "0123")])[theme]
        steps = [
            sign * (sum(channels(after)) - sum(channels(before)))
            for before, after in itertools.pairwise(colours)
        ]
        assert min(steps) > 15
        assert max(steps) - min(steps) <= 3
