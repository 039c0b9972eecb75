"""The page in a real browser: no console messages, no overflow, and controls that work."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a report on two runs; the second has more grids."""
    folder = tmp_path_factory.mktemp("report")
    first = make_run(folder / "dat", metrics=(scored(20, {"fid": 30.0}), scored(40, {"fid": 18.05})))
    second = make_run(folder / "a-baseline-with-a-long-name", "sngan-cifar10", grids=5)
    write_report([first, second], folder / "report.html")
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def shared_tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(shared_tab: Browser, page: str) -> Browser:
    """The tab, with the page freshly loaded."""
    shared_tab.problems.clear()
    shared_tab.resize(1280, 900)
    shared_tab.open("about:blank")
    shared_tab.open(page)
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


def test_sliders_move_together(tab: Browser) -> None:
    assert tab.evaluate(SHOWN) == [5, 20]  # the last grid of each run
    earlier = "document.querySelectorAll('.grids')[1].querySelectorAll('button')[0].click()"
    tab.evaluate(earlier)
    tab.evaluate(earlier)
    assert tab.evaluate(SHOWN) == [5, 10]
    tab.evaluate("document.querySelector('#together').click()")
    tab.evaluate("document.querySelectorAll('.grids')[0].querySelectorAll('button')[0].click()")
    assert tab.evaluate(SHOWN) == [0, 10]
    assert tab.evaluate("document.querySelectorAll('.grids output')[0].textContent") == "step 0"


def test_sliders_follow_the_keyboard(tab: Browser) -> None:
    tab.evaluate("document.querySelectorAll('input[type=range]')[1].focus()")
    tab.press("ArrowLeft", 37)
    assert tab.evaluate(SHOWN) == [5, 15]
    tab.press("Home", 36)
    assert tab.evaluate(SHOWN) == [0, 0]
    assert tab.evaluate("document.activeElement.getAttribute('aria-valuetext')") == "step 0"


def test_link_to_a_step(tab: Browser, page: str) -> None:
    tab.open("about:blank")
    tab.open(f"{page}#step=4")
    assert tab.evaluate(SHOWN) == [5, 5]
    tab.open("about:blank")
    tab.open(f"{page}#step=<img>")
    assert tab.evaluate(SHOWN) == [5, 20]
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


@pytest.mark.parametrize("width", [320, 768, 1920])
def test_page_fits_the_window(tab: Browser, width: int) -> None:
    tab.resize(width, 900)
    assert tab.evaluate(TOO_WIDE) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_text_is_legible_in_both_themes(tab: Browser) -> None:
    """Text and the colours of runs have a contrast of at least 4.5:1 (WCAG 1.4.3)."""
    contrast = """((names) => names.map(([ink, paper]) => {
        const box = document.createElement('div'); document.body.append(box);
        const light = (name) => {
            box.style.color = 'var(--' + name + ')';
            const [r, g, b] = getComputedStyle(box).color.match(/[0-9.]+/g).slice(0, 3).map(Number)
                .map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const [a, b] = [light(ink), light(paper)];
        box.remove();
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    }))"""
    pairs = [["ink", "page"], ["ink", "card"], ["quiet", "page"], ["quiet", "card"], ["link", "page"]]
    pairs += [["ink", "mark"], ["run0", "card"], ["run1", "card"]]
    for dark in (False, True):
        tab.resize(1280, 900, dark=dark)
        ratios = tab.evaluate(f"{contrast}({pairs})")
        assert min(ratios) >= 4.5, (dark, dict(zip(map(tuple, pairs), ratios, strict=True)))


def test_screenshots(tab: Browser, tmp_path: Path) -> None:
    """Neither theme gives an empty picture. Set ``FASTDAT_SCREENSHOTS=folder`` to keep the pictures."""
    kept = Path(os.environ.get("FASTDAT_SCREENSHOTS", tmp_path))
    for dark in (False, True):
        tab.resize(1280, 900, dark=dark)
        shot = tab.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file = kept / f"report-{'dark' if dark else 'light'}.png"
        file.write_bytes(base64.b64decode(shot["data"]))
        assert file.stat().st_size > 20_000
