"""What came out of the campaigns as rows of docs/faults.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def rows(found: Mapping[str, Any]) -> list[str]:
    """A row of the page for each campaign of the JSON that ``python -m tests.faults --json`` writes."""
    kills, full, damage, ranks = (found[name] for name in ("kills", "full disk", "damage", "rank kills"))
    tried = {
        "`kill -9` of one process": f"{kills['rounds']} kills in {kills['runs']} runs, "
        f"{kills['inside_a_checkpoint_write']} of them inside the write of a checkpoint",
        "full disk": f"{sum(full['faults'].values())} calls that failed: {full['stopped']} runs stopped with a "
        f"message, {full['survived']} went on",
        "damaged checkpoints": f"{sum(damage['rounds'].values())} ("
        + ", ".join(f"{kind}: {count}" for kind, count in sorted(damage["rounds"].items()))
        + f"), in {damage['used'].get('of step 3 instead of 9', 0)} of them two in one run",
        "`kill -9` of ranks": f"{sum(ranks['rounds'].values())} kills ("
        + ", ".join(f"{count} times {which}" for which, count in sorted(ranks["rounds"].items()))
        + f") in {ranks['runs']} runs, and NaN on one rank in {ranks['nan_rounds']}",
        "under torchrun": ", ".join(found["torchrun"]["scenarios"]),
    }
    losses = [
        len(found[name]["losses"]) for name in ("kills", "full disk", "damage", "rank kills", "torchrun")
    ]
    return [f"| {name} | {text} | {lost} |" for (name, text), lost in zip(tried.items(), losses, strict=True)]
