"""`python -m bench.laptop_recipe FOLDER`: type the README's laptop recipe, and write what it shows as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

from bench.environment import RESULTS
from fastdat.util.provenance import commit_info, machine_info
from fastdat.util.run_layout import METRICS, read_records

README = Path(__file__).parents[1] / "README.md"
HEADING = "## On a laptop, in minutes"
RESULT = "laptop-recipe.json"


def recipe(readme: str) -> str:
    """The commands of the recipe: the first indented block under its heading."""
    section = readme.split(f"\n{HEADING}\n")[1].split("\n## ")[0]
    block = section.lstrip("\n").partition("\n\n    ")[2].partition("\n\n")[0]
    assert block, "the README's laptop recipe has no block of commands"
    return textwrap.dedent(f"    {block}").strip()


def result(folder: Path) -> dict[str, Any]:
    """Run the recipe in ``folder``; its time, its scores at the last step, and the last line that it prints."""
    commands = recipe(README.read_text(encoding="utf-8"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    start = time.monotonic()
    typed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=os.environ | {"PATH": path},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds = time.monotonic() - start
    scores = {}
    for file in sorted(folder.glob(f"runs/*/*/{METRICS}")):
        *_, (_, last) = read_records(file)
        scores[str(file.parent.relative_to(folder / "runs"))] = {"step": last["step"], **last["scores"]}
    return {
        "machine": machine_info(),
        "commit": commit_info(),
        "commands": commands.splitlines(),
        "seconds": round(seconds),
        "scores": scores,
        "conclusion": typed.stdout.splitlines()[-1],
    }


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    found = result(folder)
    (RESULTS / RESULT).write_text(json.dumps(found, indent=1) + "\n")
    print(f"{found['conclusion']}\n{found['seconds']} s; {RESULTS / RESULT}")


if __name__ == "__main__":
    main()
