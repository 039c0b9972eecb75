"""``fastdat report`` on the command line."""

import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastdat import cli
from tests.report.html_page import Page
from tests.report.runs import make_run, scored


def test_report_of_two_runs(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "pages" / "both.html"
    result = CliRunner().invoke(cli.app, ["report", *map(str, two_runs), "--out", str(out)])
    assert result.exit_code == 0
    summary, headline, end = result.stdout.split("\n")
    assert re.fullmatch(rf"{out}: 2 runs, \d\.\d MB", summary)
    assert headline.startswith("No comparison: the scores were not measured in the same way; dat has ")
    assert end == ""
    assert "Training report: 2 runs" in Page(out).text
    assert headline in Page(out).text


def test_the_conclusion_names_an_extractor_that_is_not_inception(tmp_path: Path) -> None:
    lite = {"extractor": "efficientnet-lite0"}
    runs = [
        make_run(tmp_path / name, name, metrics=(scored(40, {"kid": kid}, **lite),))
        for name, kid in (("sngan-cifar10", 2.0), ("sngan-dat-cifar10", 1.5))
    ]
    arguments = ["report", *map(str, runs), "--out", str(tmp_path / "page.html")]
    *_, last = CliRunner().invoke(cli.app, arguments).stdout.splitlines()
    assert last.endswith(". KID train is by efficientnet-lite0, so not comparable with published KID.")
    assert last.startswith(
        "At step 40, sngan-dat-cifar10 is ahead of sngan-cifar10 by KID train: 1.50 against 2.00"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is no run folder: it does not exist"),
        (["dat", "--out", "report.pdf"], "give a name that ends in .html, not report.pdf"),
        (["dat", "--out", "dat/config.yaml/report.html"], "cannot write dat/config.yaml/report.html"),
        (["dat", "dat/"], "dat is given twice"),
    ],
)
def test_user_errors(
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


@pytest.mark.parametrize("package", ["jinja2", "markupsafe"])
def test_missing_template_engine(
    two_runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in [name for name in sys.modules if name.startswith("fastdat.report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    result = CliRunner().invoke(cli.app, ["report", *map(str, two_runs)])
    assert result.exit_code == 2
    assert result.stderr == f'error: this command needs {package}: pip install "fastdat[train]"\n'
