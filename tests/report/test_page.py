"""The page: whole, by itself, the same every time, and nothing that a run folder holds is code in it."""

import base64
import io
import itertools
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from fastdat import cli
from fastdat.report import ReportError, write_report
from fastdat.report.embedded import evenly, read_grids
from fastdat.report.runs import read_runs
from tests.report.html_page import Page
from tests.report.runs import make_run, png, scored

LITE: dict[str, Any] = {"extractor": "efficientnet-lite0", "fake_count": 1000, "real_count": 2000}


def report(tmp_path: Path, *runs: Path) -> Page:
    out = tmp_path / "report.html"
    write_report(runs, out)
    return Page(out)


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    """DAT with the paper's protocol, and a shorter baseline with another."""
    first = make_run(
        tmp_path / "dat",
        metrics=(
            scored(20, {"fid": 30.0, "is": 7.5}),
            scored(40, {"fid": 18.05, "is": 7.9}),
            scored(40, {"fid": 22.5}, split="test", real_count=10_000),
        ),
    )
    second = make_run(
        tmp_path / "plain", "sngan-cifar10", steps=10, grids=3, metrics=(scored(10, {"kid": 1.25}, **LITE),)
    )
    return first, second


# --- what is in it -----------------------------------------------------------------------------------------------


def test_two_runs_side_by_side(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = report(tmp_path, *two_runs)
    summary = "The runs side by side"
    assert page.row(summary, "Attack") == ["DAT on real and fake, eps 1.0, 1 step, first order", "none"]
    assert page.row(summary, "Data set") == ["CIFAR-10 at 32"] * 2
    assert page.row(summary, "G steps") == ["40 of 100 (40%)", "10 of 100 (10%)"]
    assert page.row(summary, "Time") == ["1 min 40 s", "0 min 25 s"]
    assert page.row(summary, "FID, train") == ["18.05 last, step 40 best 18.05, step 40", "-"]
    assert page.row(summary, "KID [efficientnet-lite0], train") == [
        "-",
        "1.2500 last, step 10 best 1.2500, step 10",
    ]


def test_scores_beside_the_papers(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = report(tmp_path, *two_runs)
    assert page.row("dat and the paper", "FID, train") == [
        "18.05 step 40", "18.05 step 40", "17.93", "Yes, by extractor and counts",
    ]  # fmt: skip
    assert page.row("dat and the paper", "FID, test")[2:] == ["22.46", "Yes, by extractor and counts"]
    assert page.row("dat and the paper", "IS")[:3] == ["7.90 step 40", "7.90 step 40", "7.97"]
    assert page.row("plain and the paper", "KID [efficientnet-lite0], train")[2:] == [
        "0.0149",
        "No: extractor is efficientnet-lite0, not Inception; 1,000 fakes, not 50,000; 2,000 reals, not 50,000",
    ]
    assert "Apart from scores: 40 steps, the paper's are 100,000." in page.text


def test_settings_that_differ_come_first(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = report(tmp_path, *two_runs)
    differing = page.table("Settings that differ")
    assert differing[1:] == [["dat.real", "true", "false"], ["dat.fake", "true", "false"]]
    everything = page.table("All settings (config.yaml)")
    assert ["lr", "0.0002", "0.0002"] in everything
    assert ["dat.real", "true", "false"] in everything


def test_curves_of_all_statistics(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = report(tmp_path, *two_runs)
    charts = {str(svg["aria-label"]) for svg in page.find("svg", role="img")}
    titles = {label.split(" over G steps")[0] for label in charts}
    assert {
        "Loss of D (loss)",
        "Size of the perturbation (RMS of δ, units of data)",
        "Penalty case of Eq. (13) (% of attacked samples)",
        "Learning rate (learning rate)",
        "FID, train (score)",
    } <= titles
    (loss,) = (label for label in charts if label.startswith("Loss of D"))
    assert "dat from 1.99 to 1.6, least 1.6, greatest 1.99; plain from 1.99 to 1.9" in loss
    (clipped,) = (label for label in charts if label.startswith("Clipped"))
    assert "dat from 2 to 2" in clipped  # per cent
    for drawing in re.findall(r"<svg.*?</svg>", page.source, re.DOTALL):
        ElementTree.fromstring(drawing.replace("xlink:href", "href"))


def test_scores_of_one_step_have_no_curve(tmp_path: Path) -> None:
    page = report(
        tmp_path, make_run(tmp_path / "run", steps=0, grids=0, metrics=(scored(20, {"fid": 30.0}),))
    )
    assert list(page.find("svg")) == []
    assert page.row("The run", "FID, train")[0].startswith("30.00")


def test_unknown_statistics_are_drawn_too(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", steps=0, grids=0)
    (path / "stats.jsonl").write_text('{"step": 1, "my_loss": 2}\n{"step": 2, "my_loss": 3}\n')
    (label,) = (str(svg["aria-label"]) for svg in report(tmp_path, path).find("svg", role="img"))
    assert label.startswith("my_loss (value) over G steps. run from 2 to 3")


def test_grids_are_the_files(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = report(tmp_path, *two_runs)
    shown = [image for image in page.find("img") if "data-step" in image]
    assert [image["data-step"] for image in shown] == ["0", "5", "0", "5", "10"]
    assert ["hidden" in image for image in shown] == [
        True,
        False,
        True,
        True,
        False,
    ]  # without a script: the last
    assert shown[4]["alt"] == "Samples of plain at step 10"
    head, _, content = str(shown[4]["src"]).partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(content) == (two_runs[1] / "samples" / "step-000010.png").read_bytes()


def test_a_run_with_nothing_yet(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", steps=0, grids=0)
    (path / "stats.jsonl").unlink()
    (path / "reals.png").unlink()
    page = report(tmp_path, path)
    for words in (
        "No statistics yet: run. stats.jsonl is missing or empty.",
        "Nothing to draw yet",
        "No sample grids yet.",
        "No scores: no run has a metrics.jsonl with scores in it.",
    ):
        assert words in page.text
    assert page.row("The run", "G steps") == ["0 of 100 (0%)"]


def test_points_have_modes_and_no_paper(tmp_path: Path) -> None:
    record = scored(40, {"modes": 9.0, "high_quality": 0.9, "kl": 0.1}, extractor="none", real_count=None)
    page = report(tmp_path, make_run(tmp_path / "run", "mlp-dat-gaussians", metrics=(record,)))
    caption = "run: mlp on gaussians, not in the paper's Table II"
    assert page.row(caption, "Modes found") == ["9.00 step 40", "9.00 step 40"]


# --- what it is --------------------------------------------------------------------------------------------------


def test_it_needs_nothing_but_itself(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = report(tmp_path, *two_runs)
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for tag, attributes in page.tags:
        for key in ("src", "href", "xlink:href", "action", "poster", "data"):
            value = attributes.get(key)
            if value is not None:
                assert value.startswith("data:") or (value[0] == "#" and value[1:] in ids), (
                    tag,
                    key,
                    value[:60],
                )
        for used in re.findall(r"url\(#([^)]*)\)", " ".join(str(value) for value in attributes.values())):
            assert used in ids
    assert not re.search(r"https?://(?!www\.w3\.org/)", page.source)
    (policy,) = (meta["content"] for meta in page.find("meta") if "http-equiv" in meta)
    assert "default-src 'none'" in str(policy)


def test_ids_are_unique(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    found = [attributes["id"] for _, attributes in report(tmp_path, *two_runs).tags if "id" in attributes]
    assert len(set(found)) == len(found)
    referred = [attributes.get("aria-labelledby") for _, attributes in report(tmp_path, *two_runs).tags]
    assert {name for name in referred if name} <= set(found)


def test_same_runs_same_bytes(
    two_runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(two_runs, tmp_path / "a.html")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    write_report([Path("dat"), Path("plain")], tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_what_a_run_folder_holds_is_text(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script>"
    path = make_run(
        tmp_path / "<img src=x onerror=alert(1)>",
        config={"dataset": attack, attack: '"><b>', "model": "</style><!--"},
        metrics=(
            scored(1, {attack: 1.0}, extractor=attack, weights='" onload="x', versions={attack: attack}),
        ),
    )
    line = '{"step": 41, "</svg><script>x()</script>": 1}\n'
    (path / "stats.jsonl").write_text(line)
    page = report(tmp_path, path)
    tags = {tag for tag, _ in page.tags}
    assert len(list(page.find("script"))) == 1
    assert "b" not in tags
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert attack in page.text
    assert [cell for row in page.table("All settings") for cell in row if cell == '"><b>']


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """A folder's name may hold bytes that are no UTF-8."""
    page = report(tmp_path, make_run(tmp_path / "run-\udcff", grids=0))
    assert "Training report: run-?" in page.text


def test_more_runs_than_colours_by_hand(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"run{i}", steps=2, grids=0) for i in range(14)]
    page = report(tmp_path, *runs)
    assert len(page.table("The runs side by side")[0]) == 15
    for i in range(14):
        assert f"--run{i}:" in page.source


# --- pictures ----------------------------------------------------------------------------------------------------


def test_many_grids_are_thinned_evenly(tmp_path: Path) -> None:
    page = report(tmp_path, make_run(tmp_path / "run", grids=101))
    steps = [int(str(image["data-step"])) for image in page.find("img") if "data-step" in image]
    assert (len(steps), steps[0], steps[-1]) == (24, 0, 500)
    assert {b - a for a, b in itertools.pairwise(steps)} <= {20, 25}
    assert "24 of 101 grids, evenly chosen; 77 left out (at most 24 a run)." in page.text


def test_evenly_keeps_both_ends() -> None:
    files = [(i, Path(str(i))) for i in range(7)]
    assert [i for i, _ in evenly(files, 2)] == [0, 6]
    assert evenly(files, 7) == files


def test_pages_stay_small_enough_to_open(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", grids=1)
    noise = Image.effect_noise((256, 256), 100)
    content = io.BytesIO()
    noise.save(content, "png")
    (path / "samples" / "step-000000.png").write_bytes(content.getvalue())
    runs = read_runs([path])
    (full,), divisor = read_grids(runs)
    assert (divisor, full.pictures[0].png) == (1, content.getvalue())
    (small,), divisor = read_grids(runs, limit=len(content.getvalue()) // 2)
    assert (divisor, small.pictures[0].width, small.pictures[0].height) == (2, 128, 128)
    with Image.open(io.BytesIO(small.pictures[0].png)) as image:
        assert (image.mode, image.size) == ("L", (128, 128))


@pytest.mark.parametrize("content", [b"", b"GIF89a", png((1, 2, 3))[:60]])
def test_a_damaged_picture_is_named(tmp_path: Path, content: bytes) -> None:
    path = make_run(tmp_path / "run")
    (path / "samples" / "step-000005.png").write_bytes(content)
    with pytest.raises(ReportError, match=r"step-000005\.png is no PNG that can be read"):
        write_report([path], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


# --- the command -------------------------------------------------------------------------------------------------


def test_command(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "pages" / "both.html"
    result = CliRunner().invoke(cli.app, ["report", *map(str, two_runs), "--out", str(out)])
    assert result.exit_code == 0
    assert re.fullmatch(rf"{out}: 2 runs, \d\.\d MB\n", result.stdout)
    assert "Training report: 2 runs" in Page(out).text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is no run folder: it does not exist"),
        (["dat", "--out", "report.pdf"], "give a name that ends in .html, not report.pdf"),
        (["dat", "--out", "dat/config.yaml/report.html"], "cannot write dat/config.yaml/report.html"),
        (["dat", "dat/"], "dat is given twice"),
    ],
)
def test_mistakes(
    two_runs: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, ["report", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
