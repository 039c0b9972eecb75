"""The source tree can be installed and run in place, and its lists agree with each other."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch

import fastdat
from tests.environment import REPOSITORY

PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python at the top of the tree."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": ".", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def pins(name: str) -> dict[str, str]:
    """Package -> pinned version of a constraints file."""
    text = (REPOSITORY / name).read_text()
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", text, re.MULTILINE))


def test_kernels_link_is_relative_and_resolves() -> None:
    link = REPOSITORY / "fastdat" / "kernels"
    assert link.is_symlink()
    assert os.readlink(link) == "../kernels"
    assert link.resolve() == REPOSITORY / "kernels"


def test_kernels_cannot_be_imported_under_another_name() -> None:
    outcome = run("-c", "import kernels")
    assert outcome.returncode != 0
    assert "ImportError" in outcome.stderr
    assert "fastdat.kernels" in outcome.stderr


def test_kernels_import_under_their_own_name() -> None:
    assert run("-c", "import fastdat.kernels").returncode == 0


def test_every_package_is_listed() -> None:
    """The explicit list in pyproject.toml agrees with the folders."""
    folders = {path.parent for path in (REPOSITORY / "fastdat").rglob("__init__.py")}
    names = {".".join(folder.relative_to(REPOSITORY).parts) for folder in folders} | {"fastdat.kernels"}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == names


def test_wheel_holds_every_module_once(tmp_path: Path) -> None:
    """The kernels are in it as fastdat.kernels only, although a link shows them in a second place."""
    setuptools = pytest.importorskip("setuptools", minversion="77")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("fastdat", "kernels"):
        shutil.copytree(REPOSITORY / name, source / name, symlinks=True)
    flags = ("--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    outcome = run("-m", "pip", "wheel", *flags, "--wheel-dir", str(tmp_path), str(source))
    assert outcome.returncode == 0, (setuptools.__version__, outcome.stderr)
    (wheel,) = tmp_path.glob("*.whl")
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    folders = [*(REPOSITORY / "fastdat").rglob("*.py"), *(REPOSITORY / "fastdat" / "kernels").rglob("*.py")]
    modules = {str(path.relative_to(REPOSITORY)) for path in folders}
    others = [
        *(REPOSITORY / "fastdat" / "data" / "docs").glob("*.md"),
        *(REPOSITORY / "fastdat" / "report" / "templates").iterdir(),
        REPOSITORY / "fastdat" / "training" / "measured_sizes.json",
    ]
    pages = {str(path.relative_to(REPOSITORY)) for path in others}
    assert sorted(names) == sorted(modules | pages | {"fastdat/py.typed"})


def test_version_has_one_source() -> None:
    assert "version" not in PYPROJECT["project"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {
        "attr": "fastdat.util.version.__version__"
    }
    assert re.fullmatch(r"\d+\.\d+\.\d+", fastdat.__version__)


def test_constraints_pin_every_dependency() -> None:
    project = PYPROJECT["project"]
    wanted = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    names = {re.split(r"[<>=!; ]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    names = {name for name in names if not name.startswith("fastdat[")}  # an extra that includes others
    pinned = {name.lower().replace("_", "-") for name in pins("constraints.txt")}
    assert names <= pinned


def test_compat_pins_replace_existing_pins() -> None:
    """`make compat` replaces these lines of constraints.txt, so each must exist there."""
    compat = pins("constraints-compat.txt")
    assert {"torch", "torchvision", "triton"} <= set(compat)
    assert set(compat) <= set(pins("constraints.txt"))
    assert f"torch>={compat['torch'].removesuffix('.0')}" in PYPROJECT["project"]["dependencies"]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_check_fails_without_a_gpu() -> None:
    outcome = run("-m", "bench.gpu_check")
    assert outcome.returncode == 1
    assert "no GPU" in outcome.stderr
    assert outcome.stdout == ""


@pytest.mark.slow
def test_benchmarks_are_skipped_unless_asked_for(tmp_path: Path) -> None:
    outcome = run("-m", "pytest", "bench", "-q", "-p", "no:cacheprovider", CUDA_VISIBLE_DEVICES="")
    assert outcome.returncode == 0, outcome.stdout
    assert "skipped" in outcome.stdout
    assert "passed" not in outcome.stdout


def test_results_name_no_host_and_no_path() -> None:
    """The JSON of a result contains no host name and no path."""
    from bench.environment import results_path
    from fastdat.util.provenance import commit_info, machine_info

    text = str([machine_info(), commit_info(), results_path()])
    assert os.uname().nodename not in text
    assert str(Path.home()) not in text
    assert str(REPOSITORY) not in text


def test_ci_workflow_runs_what_ci_run_runs() -> None:
    """The same make targets, on every Python version of the classifiers."""
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["check"]
    (command,) = (step["run"] for step in job["steps"] if "run" in step)
    script = re.findall(r"^make (\S+)$", (REPOSITORY / ".ci" / "run").read_text(), re.MULTILINE)
    assert command.split() == ["make", *script]
    classifiers = " ".join(PYPROJECT["project"]["classifiers"])
    assert job["strategy"]["matrix"]["python"] == re.findall(r"Python :: (3\.\d+)", classifiers)


def test_folders_of_the_suite_exist() -> None:
    """`tests/run_suite.sh` runs some folders in a process of their own."""
    script = (REPOSITORY / "tests" / "run_suite.sh").read_text()
    beside = re.search(r"^BESIDE=\((.*)\)$", script, re.MULTILINE)
    assert beside is not None
    assert all((REPOSITORY / folder).is_dir() for folder in beside[1].split())
    assert "tests/kernels" not in beside[1].split()
    assert os.access(REPOSITORY / "tests" / "run_suite.sh", os.X_OK)
