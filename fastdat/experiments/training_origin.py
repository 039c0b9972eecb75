"""By which commit and on which machine something was trained, over all calls that went on with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import torch

from fastdat.util.provenance import commit_in_words, commit_info, device_name, processor_name


@dataclass(frozen=True)
class Origin:
    """Where something was trained; more than one of each if it was stopped and went on elsewhere.

    Args:
        commits: in words, as :func:`fastdat.util.provenance.commit_in_words` says them, in their order.
        machines: names of the devices, in their order.
    """

    commits: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()


def here(device: torch.device) -> Origin:
    """That of what this process trains on ``device``."""
    return Origin((_commit(),), (device_name() if device.type == "cuda" else processor_name(),))


def joined(origins: Iterable[Origin]) -> Origin:
    """That of the parts of a whole: each commit and each machine once."""
    parts = list(origins)
    return Origin(
        tuple(dict.fromkeys(commit for part in parts for commit in part.commits)),
        tuple(dict.fromkeys(machine for part in parts for machine in part.machines)),
    )


@cache
def _commit() -> str:
    """Asked once: the files may change while the process runs."""
    return commit_in_words(commit_info())
