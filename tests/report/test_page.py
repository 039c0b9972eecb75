"""The page: what its sections show, that it is self-contained, and that text from a run folder never becomes code."""

import base64
import re
import xml.etree.ElementTree as ElementTree
from importlib.resources import files
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from fastdat.report import write_report
from fastdat.report.page import template_environment
from tests.report.html_page import report
from tests.report.runs import make_run, scored

# --- the sections --------------------------------------------------------------------------------------------------


def test_summary_of_two_runs(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = report(tmp_path, *two_runs)
    summary = "The runs side by side"
    assert page.row(summary, "Attack") == ["DAT on real and fake, eps 1.0, 1 step, first order", "none"]
    assert page.row(summary, "Data set") == ["CIFAR-10 at 32"] * 2
    assert page.row(summary, "G steps") == ["40 of 100 (40%)", "10 of 100 (10%)"]
    assert page.row(summary, "Time") == ["1 min 40 s", "0 min 25 s"]


def test_sections_begin_with_the_answer(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = report(tmp_path, *two_runs)
    ids = [attributes["id"] for attributes in page.find("section")]
    assert ids == ["conclusion", "samples", "scores", "curves", "paper", "configuration"]
    assert (
        "No comparison: the scores were not measured in the same way; "
        "dat has FID train, FID test and IS, plain has KID train." in page.text
    )
    assert "In progress, or stopped early: dat (40 of 100 steps) and plain (10 of 100 steps)." in page.text


def test_scores_of_two_runs(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    """The best score stands beside the last one only where they differ."""
    page = report(tmp_path, *two_runs)
    head, *_ = page.table("The last scores")
    assert head == [
        "Run",
        "FID train1 less is better",
        "FID test2 less is better",
        "IS3 more is better",
        "KID train4 efficientnet-lite0 less is better",
    ]
    assert page.row("The last scores", "dat") == ["18.05 step 40", "22.50 step 40", "7.90 step 40", "-"]
    assert page.row("The last scores", "plain") == ["-", "-", "-", "1.25 step 10"]


def test_best_score_that_is_not_the_last(tmp_path: Path) -> None:
    metrics = tuple(scored(step, {"fid": fid}) for step, fid in ((10, 30.0), (20, 20.0), (40, 25.0)))
    page = report(tmp_path, make_run(tmp_path / "run", metrics=metrics))
    assert page.row("Scores at step 40", "run") == ["25.00 best 20.00, step 20"]


def test_scores_of_groups(tmp_path: Path) -> None:
    runs = [
        make_run(
            tmp_path / f"{name}-{seed}",
            f"{name}-cifar10",
            config={"seed": seed},
            metrics=(scored(20, {"fid": 50.0}), scored(40, {"fid": fid})),
        )
        for name, seed, fid in (("sngan", 0, 30.0), ("sngan", 1, 34.0), ("sngan-dat", 0, 20.0))
    ]
    page = report(tmp_path, *runs)
    assert page.table("Scores at step 40")[1:] == [
        ["sngan mean of 2 seeds", "32.00 30.00 to 34.00"],
        ["sngan-0", "30.00"],
        ["sngan-1", "34.00"],
        ["sngan-dat-0", "20.00"],
    ]
    rows = [attributes.get("class") for attributes in page.find("tr")][1:5]
    assert rows == ["total", "part", "part", None]
    assert "sngan-dat-0 is ahead of sngan (2 seeds) by FID train: 20.00 against 32.00" in " ".join(
        page.text.split()
    )


def test_provenance_is_a_tooltip_and_a_footnote(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = report(tmp_path, *two_runs)
    tooltips = {str(span["title"]) for span in page.find("span") if "title" in span}
    assert len(tooltips) == 4
    for words in tooltips:
        assert page.text.count(words) == 1  # in the list of footnotes
    notes = [str(note["id"]) for note in page.find("li") if "id" in note]
    assert notes == ["score1", "score2", "score3", "score4"]
    links = {str(link["href"]) for link in page.find("a")}
    assert {f"#{note}" for note in notes} <= links


def test_scores_beside_the_papers(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = report(tmp_path, *two_runs)
    assert page.row("dat and the paper", "FID train") == [
        "18.05 step 40", "17.93", "Yes, by extractor and counts",
    ]  # fmt: skip
    assert page.row("dat and the paper", "FID test")[1:] == [
        "22.46",
        "Yes, by extractor and counts; 50,000 fakes, fastdat's default",
    ]
    assert page.row("dat and the paper", "IS")[:2] == ["7.90 step 40", "7.97"]
    assert page.row("plain and the paper", "KID train4 efficientnet-lite0")[1:] == [
        "0.0149",
        "No: extractor is efficientnet-lite0, not Inception; 1,000 fakes, not 50,000; 2,000 reals, not 50,000",
    ]
    settings = "Apart from scores: 40 steps, the paper's are 100,000."
    assert (
        f"{settings} The attack is fastdat's default. Unlike that of Eq. 10: dat.seed is logits" in page.text
    )


def test_settings_that_differ_come_first(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = report(tmp_path, *two_runs)
    differing = page.table("Settings that differ")
    assert differing[1:] == [["dat.real", "true", "false"], ["dat.fake", "true", "false"]]
    everything = page.table("All settings (config.yaml)")
    assert ["lr", "0.0002", "0.0002"] in everything
    assert ["dat.real", "true", "false"] in everything


def test_paths_are_shown_without_their_beginnings(tmp_path: Path) -> None:
    """A page that is sent to somebody does not say where its author's files are, but still compares whole paths."""
    settings = [
        {
            "data": f"/home/{user}/sets/cifar10",
            "init_from": "/runs/a",
            "eval": {"weights": f"/home/{user}/w/x.pt"},
        }
        for user in ("ann", "bob")
    ]
    runs = [
        make_run(
            tmp_path / f"run-{i}",
            config=config | {"dataset": "folder", "note": "1/2/3/4"},
            metrics=(scored(40, {"fid": 9.0 + i}),),
        )
        for i, config in enumerate(settings)
    ]
    page = report(tmp_path, *runs)
    data, weights = ["data", *[".../sets/cifar10"] * 2], ["eval.weights", *[".../w/x.pt"] * 2]
    differing, everything = page.table("Settings that differ"), page.table("All settings (config.yaml)")
    assert data in differing
    assert weights in differing
    assert data in everything
    assert ["init_from", "/runs/a", "/runs/a"] in everything
    assert ["note", "1/2/3/4", "1/2/3/4"] in everything
    assert "/home" not in page.source
    assert [row[0] for row in page.table("Scores at step 40")[1:]] == ["run-0", "run-1"]  # no group


def test_score_table_counts_runs_that_share_a_seed_once(tmp_path: Path) -> None:
    """Its mean is that of the conclusion."""
    runs = [
        make_run(tmp_path / f"run-{i}", config={"seed": seed}, metrics=(scored(40, {"fid": fid}),), grids=0)
        for i, (seed, fid) in enumerate(((0, 30.0), (0, 32.0), (1, 21.0)))
    ]
    page = report(tmp_path, *runs)
    assert page.table("Scores at step 40")[1] == ["run mean of 3 runs", "26.00 21.00 to 31.00"]


def test_curves_of_all_statistics(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = report(tmp_path, *two_runs)
    charts = {str(svg["aria-label"]) for svg in page.find("svg", role="img")}
    titles = {label.split(" over G steps")[0] for label in charts}
    assert {
        "Loss of D (loss)",
        "Size of the perturbation (RMS of δ, units of data)",
        "Objective of D lowered by the attack (% of attacked samples)",
        "Learning rate (learning rate)",
        "FID train (score)",
    } <= titles
    (loss,) = (label for label in charts if label.startswith("Loss of D"))
    assert "dat from 1.99 to 1.6, least 1.6, greatest 1.99; plain from 1.99 to 1.9" in loss
    (clipped,) = (label for label in charts if label.startswith("Clipped"))
    assert "dat from 2 to 2" in clipped  # per cent
    for drawing in re.findall(r"<svg.*?</svg>", page.source, re.DOTALL):
        ElementTree.fromstring(drawing.replace("xlink:href", "href"))


def test_scores_of_a_single_step_have_no_curve(tmp_path: Path) -> None:
    page = report(
        tmp_path, make_run(tmp_path / "run", steps=0, grids=0, metrics=(scored(20, {"fid": 30.0}),))
    )
    assert list(page.find("svg")) == []
    assert page.row("Scores at step 20", "run") == ["30.00"]


def test_statistics_of_unknown_names_are_drawn(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", steps=0, grids=0)
    (path / "stats.jsonl").write_text('{"step": 1, "my_loss": 2}\n{"step": 2, "my_loss": 3}\n{"step": 3}\n')
    (label,) = (str(svg["aria-label"]) for svg in report(tmp_path, path).find("svg", role="img"))
    assert label.startswith("my_loss (value) over G steps. run from 2 to 3")


def test_grids_are_the_files_of_the_run(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = report(tmp_path, *two_runs)
    shown = [image for image in page.find("img") if "data-step" in image]
    assert [image["data-step"] for image in shown] == ["0", "5", "0", "5", "10"]
    # Without JavaScript, the last grids of the same step are visible.
    assert ["hidden" in image for image in shown] == [True, False, True, False, True]
    assert shown[4]["alt"] == "Samples of plain at step 10"
    head, _, content = str(shown[4]["src"]).partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(content) == (two_runs[1] / "samples" / "step-000010.png").read_bytes()


def test_run_without_results(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", steps=0, grids=0)
    (path / "stats.jsonl").unlink()
    (path / "reals.png").unlink()
    page = report(tmp_path, path)
    for words in (
        "run has no scores yet.",
        "No statistics yet: run. stats.jsonl is missing or empty.",
        "Nothing to draw yet",
        "No sample grids yet.",
        "No scores: no run has a metrics.jsonl with scores in it.",
    ):
        assert words in page.text
    assert page.row("The run", "G steps") == ["0 of 100 (0%)"]


def test_scores_of_points_have_no_counterpart_in_the_paper(tmp_path: Path) -> None:
    record = scored(40, {"modes": 9.0, "high_quality": 0.9, "kl": 0.1}, extractor="none", real_count=None)
    page = report(tmp_path, make_run(tmp_path / "run", "mlp-dat-gaussians", metrics=(record,)))
    assert page.row("Scores at step 40", "run") == ["9.00", "0.900", "0.100"]
    assert "run: mlp on gaussians is not in the paper's Table II." in page.text


# --- the page as a whole -------------------------------------------------------------------------------------------


def test_page_is_self_contained(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
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


def test_text_from_a_run_folder_is_not_code(tmp_path: Path) -> None:
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


def test_names_of_runs_are_text_in_every_section(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)> \"'&amp;"
    metrics = tuple(scored(step, {"fid": 30.0, "mine": 1.0}) for step in (10, 20))
    page = report(
        tmp_path,
        make_run(tmp_path / name, metrics=metrics),
        make_run(tmp_path / "dcgan", "dcgan-dat-cifar10", metrics=metrics),
        make_run(tmp_path / "empty" / name, steps=0, grids=0),
    )
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.find("img"))
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    labels = [str(attributes.get("aria-label") or attributes.get("alt")) for _, attributes in page.tags]
    for expected in ("Loss of D (loss) over G steps. ", "FID train", "Earlier grid of ", "Samples of "):
        assert any(label.startswith(expected) and name in label for label in labels), expected
    for caption in ("The runs side by side", "All settings"):
        assert page.table(caption)[0][1].endswith(name)
    assert page.table(f"{name} and the paper")
    assert f"empty/{name}: no scores." in page.text


def test_templates_escape_all_text() -> None:
    """No template switches the escaping off, and a misspelt name is an error instead of an empty text."""
    environment = template_environment()
    names = environment.list_templates(extensions=["html"])
    assert {"page.html", "macros.html", "curves.html", "conclusion.html"} <= set(names)
    for name in names:
        source = (files("fastdat.report") / "templates" / name).read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe|autoescape|Markup", source), name
    assert environment.from_string("<p>{{ text }}</p>").render(text="<b>") == "<p>&lt;b&gt;</p>"
    with pytest.raises(UndefinedError, match="'missing' is undefined"):
        environment.from_string("{{ missing }}").render()


def test_folder_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run-\udcff", grids=0)
    assert write_report([path], tmp_path / "page.html").headline == "run-? has no scores yet."
    page = report(tmp_path, path)
    assert "Training report: run-?" in page.text


def test_more_runs_than_chosen_colours(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"run{i}", steps=2, grids=0) for i in range(14)]
    page = report(tmp_path, *runs)
    assert len(page.table("The runs side by side")[0]) == 15
    for i in range(14):
        assert f"--run{i}:" in page.source
