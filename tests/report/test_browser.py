"""The page in a real browser: no console messages, no overflow, and controls that work."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastdat.report import write_report
from tests.report.browser import Browser, browser, find_browser
from tests.report.runs import make_run, scored

CHROMIUM = find_browser()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome on the PATH")

SHOWN = "[...document.querySelectorAll('img[data-step]')].filter((i) => !i.hidden).map((i) => Number(i.dataset.step))"
# Content of boxes that scroll sideways may be wider than the window.
TOO_WIDE = """[...document.querySelectorAll('body *')].filter((e) => !e.closest('.scroll') && !e.closest('svg')
    && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map((e) => e.outerHTML.slice(0, 90))"""


BAR, OWN = "document.querySelector('.controls.all')", "[...document.querySelectorAll('.grids .controls')]"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The URLs of reports on one run, two runs, two groups of two seeds, and a run in progress beside another."""
    folder = tmp_path_factory.mktemp("report")

    def kids(first: float, *steps: int) -> tuple[dict[str, Any], ...]:
        return tuple(
            scored(
                step,
                {"kid": first - step / 1000, "kid_std": 0.05},
                extractor="efficientnet-lite0",
                split="test",
            )
            for step in steps
        )

    seeds = [
        make_run(
            folder / f"{name}-{seed}", f"{name}-cifar10", config={"seed": seed}, metrics=kids(first, 20, 40)
        )
        for name, first in (("dcgan", 1.7), ("dcgan-dat", 1.6))
        for seed in (0, 1)
    ]
    dat = make_run(folder / "dat", metrics=(scored(20, {"fid": 30.0}), scored(40, {"fid": 18.05})))
    long = make_run(folder / "a-baseline-with-a-long-name", "sngan-cifar10", grids=5)
    finished = make_run(folder / "finished", config={"steps": 40}, grids=3, metrics=kids(1.5, 20, 40))
    begun = make_run(folder / "begun", "sngan-cifar10", steps=10, grids=1)
    runs = {
        "one run": [finished],
        "two runs": [dat, long],
        "four runs": seeds,
        "in progress": [finished, begun],
        "no scores": [begun],  # 10 charts, one more than fills rows of three; the others have 11
    }
    urls = {}
    for name, paths in runs.items():
        file = folder / f"{name.replace(' ', '-')}.html"
        write_report(paths, file)
        urls[name] = file.as_uri()
    return urls


@pytest.fixture(scope="module")
def shared_tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(shared_tab: Browser, pages: dict[str, str]) -> Browser:
    """The tab, with the page on two runs freshly loaded."""
    shared_tab.problems.clear()
    shared_tab.resize(1280, 900)
    shared_tab.open("about:blank")
    shared_tab.open(pages["two runs"])
    return shared_tab


def test_page_loads_without_messages(tab: Browser) -> None:
    assert tab.evaluate("document.documentElement.dataset.script") == "ready"
    assert tab.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth === 70)") is True
    assert tab.problems == []


def test_policy_blocks_other_scripts(tab: Browser) -> None:
    tab.evaluate(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.intruder = 1';"
        " document.body.append(s); })()"
    )
    assert tab.evaluate("typeof window.intruder") == "undefined"
    assert any("Content Security Policy" in problem for problem in tab.problems)


def test_one_slider_moves_all_runs(tab: Browser) -> None:
    assert tab.evaluate(SHOWN) == [5, 5]  # the last step of which both have a grid
    assert tab.evaluate(f"[{BAR}, ...{OWN}].map((e) => e.getBoundingClientRect().width > 0)") == [
        True,
        False,
        False,
    ]
    tab.evaluate(f"{BAR}.querySelectorAll('button')[1].click()")
    assert tab.evaluate(SHOWN) == [5, 10]  # each its nearest
    assert tab.evaluate(f"{BAR}.querySelector('output').textContent") == "step 10"
    assert tab.evaluate("[...document.querySelectorAll('.grids output')].map((e) => e.textContent)") == [
        "step 5",
        "step 10",
    ]
    for _ in range(3):
        tab.evaluate(f"{BAR}.querySelectorAll('button')[0].click()")
    assert tab.evaluate(SHOWN) == [0, 0]
    assert tab.evaluate(f"{BAR}.querySelectorAll('button')[0].disabled") is True


def test_each_run_has_its_own_slider_too(tab: Browser) -> None:
    tab.evaluate("document.querySelector('#together').click()")
    assert tab.evaluate(f"{OWN}.map((e) => e.getBoundingClientRect().width > 0)") == [True, True]
    assert tab.evaluate(f"{BAR}.querySelector('input[type=range]').getBoundingClientRect().width") == 0
    tab.evaluate(f"{OWN}[1].querySelectorAll('button')[1].click()")
    assert tab.evaluate(SHOWN) == [5, 10]
    tab.evaluate(f"{OWN}[0].querySelectorAll('button')[0].click()")
    assert tab.evaluate(SHOWN) == [0, 10]
    assert tab.evaluate("document.querySelector('.grids output').textContent") == "step 0"
    tab.evaluate("document.querySelector('#together').click()")
    assert tab.evaluate(SHOWN) == [0, 0]


def test_one_run_has_one_slider(tab: Browser, pages: dict[str, str]) -> None:
    tab.open(pages["one run"])
    assert tab.evaluate(f"[{BAR}, ...{OWN}].map((e) => e.getBoundingClientRect().width > 0)") == [True, False]
    assert tab.evaluate("document.querySelector('#together').getBoundingClientRect().width") == 0
    tab.evaluate(f"{BAR}.querySelectorAll('button')[0].click()")
    assert tab.evaluate(SHOWN) == [5]


def test_sliders_follow_the_keyboard(tab: Browser) -> None:
    tab.evaluate(f"{BAR}.querySelector('input[type=range]').focus()")
    tab.press("ArrowRight", 39)
    assert tab.evaluate(SHOWN) == [5, 10]
    tab.press("End", 35)
    assert tab.evaluate(SHOWN) == [5, 20]
    tab.press("Home", 36)
    assert tab.evaluate(SHOWN) == [0, 0]
    assert tab.evaluate("document.activeElement.getAttribute('aria-valuetext')") == "step 0"


def test_link_to_a_step(tab: Browser, pages: dict[str, str]) -> None:
    tab.open("about:blank")
    tab.open(f"{pages['two runs']}#step=14")
    assert tab.evaluate(SHOWN) == [5, 15]
    assert tab.evaluate(f"{BAR}.querySelector('output').textContent") == "step 15"
    tab.open("about:blank")
    tab.open(f"{pages['two runs']}#step=<img>")
    assert tab.evaluate(SHOWN) == [5, 5]
    assert tab.problems == []


def test_legend_hides_runs(tab: Browser) -> None:
    seen = """[0, 1].map((i) => [...document.querySelectorAll('svg .run' + i)]
        .some((e) => e.getBoundingClientRect().width))"""
    assert tab.evaluate(seen) == [True, True]
    tab.evaluate("document.querySelector('button[data-run=\"1\"]').click()")
    assert tab.evaluate(seen) == [True, False]
    assert (
        tab.evaluate("document.querySelector('button[data-run=\"1\"]').getAttribute('aria-pressed')")
        == "false"
    )
    tab.evaluate("document.querySelector('button[data-run=\"1\"]').click()")
    assert tab.evaluate(seen) == [True, True]


PAGES = pytest.mark.parametrize("name", ["one run", "two runs", "four runs", "in progress"])
DARK = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])


@pytest.mark.parametrize("name", ["one run", "two runs", "four runs", "in progress", "no scores"])
@pytest.mark.parametrize("width", [320, 768, 1280, 1600, 1920])
def test_page_fits_the_window_without_gaps(
    tab: Browser, pages: dict[str, str], name: str, width: int
) -> None:
    """Nothing is wider than the window, and each row of cards ends at the right edge."""
    tab.resize(width, 900)
    tab.open(pages[name])
    assert tab.evaluate(TOO_WIDE) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    gaps = """['.charts', '.runs'].flatMap((box) => {
        const ends = new Map(), all = document.querySelector(box), right = all.getBoundingClientRect().right;
        for (const card of all.children) {
            const {top, right} = card.getBoundingClientRect();
            ends.set(Math.round(top), Math.max(right, ends.get(Math.round(top)) ?? 0));
        }
        return [...ends.values()].map((end) => Math.round(right - end));
    })"""
    assert set(tab.evaluate(gaps)) == {0}
    assert tab.evaluate(COLLIDING_TICKS) == []
    tab.evaluate("document.querySelector('#together').click()")  # now each run has controls of its own
    assert tab.evaluate(TOO_WIDE) == []


# Texts at the axes that overlap, or leave their card.
COLLIDING_TICKS = """[...document.querySelectorAll('.plot')].flatMap((plot) => {
    const card = plot.closest('.card').getBoundingClientRect();
    return ['.across span', '.up span'].flatMap((which) => {
        const boxes = [...plot.querySelectorAll(which)].map((e) => [e.textContent, e.getBoundingClientRect()]);
        return boxes.filter(([, a], i) => a.left < card.left || a.right > card.right || boxes.some(([, b], j) => i < j
            && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)).map(([text]) => text);
    });
})"""


@PAGES
@DARK
def test_phone(tab: Browser, pages: dict[str, str], name: str, dark: bool) -> None:
    """The page is as wide as the phone, its text is legible without zooming, and fingers hit what they aim at."""
    tab.resize(390, 844, dark=dark, phone=True)
    tab.open(pages[name])
    assert tab.evaluate("[innerWidth, visualViewport.scale, devicePixelRatio]") == [390, 1, 3]
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert tab.evaluate(TOO_WIDE) == []
    assert tab.evaluate(COLLIDING_TICKS) == []
    sizes = """[...document.querySelectorAll('body *')].filter((e) => [...e.childNodes]
        .some((n) => n.nodeType === 3 && n.data.trim()))
        .map((e) => [parseFloat(getComputedStyle(e).fontSize), e.textContent])"""
    assert min(tab.evaluate(sizes))[0] >= 11.5
    assert (
        tab.evaluate("document.querySelectorAll('svg text').length") == 0
    )  # it would shrink with the drawing
    assert tab.evaluate("Math.min(...[...document.querySelectorAll('svg')].map((e) => e.clientWidth))") >= 270
    small = """[...document.querySelectorAll('a,button,input,summary')].map((e) => e.closest('label') ?? e)
        .map((e) => [e.outerHTML.slice(0, 90), e.getBoundingClientRect()])
        .filter(([, box]) => box.width && (box.width < 40 || box.height < 40)).map(([html]) => html)"""
    assert tab.evaluate(small) == []
    tab.evaluate("document.querySelector('details').open = true")
    boxes = """[...document.querySelectorAll('.scroll')].map((e) => [getComputedStyle(e).overflowX,
        e.scrollWidth > e.clientWidth])"""
    assert {overflow for overflow, _ in tab.evaluate(boxes)} == {"auto"}
    if name != "one run":
        assert any(scrolls for _, scrolls in tab.evaluate(boxes))
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert tab.problems == []


# The contrast of two colours given as arrays of red, green and blue (WCAG 1.4.3).
CONTRAST = """const rgb = (text) => text.match(/[0-9.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92
    : ((c + 0.055) / 1.055) ** 2.4).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const contrast = (one, two) => { const [a, b] = [light(one), light(two)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c; } return null; };"""


@PAGES
@DARK
def test_text_is_legible_in_both_themes(tab: Browser, pages: dict[str, str], name: str, dark: bool) -> None:
    """All text has a contrast of at least 4.5:1 to what is behind it."""
    tab.resize(1280, 900, dark=dark)
    tab.open(pages[name])
    tab.evaluate("document.querySelector('details').open = true")
    found = tab.evaluate(f"""(() => {{ {CONTRAST}
        return [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().width
            && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
            .map((e) => [contrast(rgb(getComputedStyle(e).color), behind(e)), e.textContent.slice(0, 60)]);
    }})()""")
    assert len(found) > 100
    assert min(found)[0] >= 4.5, min(found)


@DARK
def test_curves_are_visible_in_both_themes(tab: Browser, pages: dict[str, str], dark: bool) -> None:
    """Means contrast with the card as text does; all values behind them less, but more than a hairline of a grid."""
    tab.resize(1280, 900, dark=dark)
    tab.open(pages["four runs"])
    drawn = tab.evaluate(f"""(() => {{ {CONTRAST}
        return Object.fromEntries(['raw', 'line', 'grid'].map((kind) => [kind,
            Math.min(...[...document.querySelectorAll('path.' + kind)].map((e) => {{
                const style = getComputedStyle(e), card = behind(e), opacity = Number(style.opacity);
                return contrast(rgb(style.stroke).map((c, i) => opacity * c + (1 - opacity) * card[i]), card);
            }}))]));
    }})()""")
    assert drawn["line"] >= 4.5
    assert drawn["raw"] >= 2.5 > drawn["grid"] > 1.2


@PAGES
@DARK
def test_screenshots(tab: Browser, pages: dict[str, str], tmp_path: Path, name: str, dark: bool) -> None:
    """No theme and no width gives an empty picture. Set ``FASTDAT_SCREENSHOTS=folder`` to keep the pictures."""
    kept = Path(os.environ.get("FASTDAT_SCREENSHOTS", tmp_path))
    for width in (390, 768, 1280):
        tab.resize(width, 900, dark=dark, phone=width == 390)
        tab.open(pages[name])
        shot = tab.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file = kept / f"{name.replace(' ', '-')}-{width}-{'dark' if dark else 'light'}.png"
        file.write_bytes(base64.b64decode(shot["data"]))
        assert file.stat().st_size > 20_000
