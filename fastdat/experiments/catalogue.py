"""The experiments by name, as ``fastdat reproduce NAME`` runs them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol

from fastdat.experiments.outcome import Outcome
from fastdat.util.settings import PositiveInt, check_fields


@dataclass(frozen=True)
class Options:
    """How an experiment is run; what each does not need has no effect on it.

    Args:
        quick: scaled down, so that it takes at most 15 minutes on two cores; else the paper's full length.
        seeds: independent runs of each arm, with the seeds 0, 1, ...; None: as many as the paper has, or a few.
        data: folder of the images.
        only: parts of arms' names: only the arms that contain one of them; all arms if empty.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        compile: compile the steps.

    Raises:
        ConfigError: a value of the wrong type or outside its range.
    """

    quick: bool = True
    seeds: PositiveInt | None = None
    data: str | None = None
    only: tuple[str, ...] = ()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = True

    def __post_init__(self) -> None:
        check_fields(self)


class Experiment(Protocol):
    """A module of an experiment."""

    def run(self, options: Options, folder: Path) -> Outcome:
        """Train what is needed, or go on where an earlier run in ``folder`` stopped, and measure it."""
        ...


@dataclass(frozen=True)
class Entry:
    """An experiment in the catalogue.

    Args:
        module: where its ``run`` is.
        summary: one sentence for ``--help``.
        data: the data set that ``--data`` has to hold; None if it needs none.
    """

    module: str
    summary: str
    data: str | None = None


CATALOGUE: dict[str, Entry] = {}


def load(name: str) -> Experiment:
    """The experiment called ``name``; matplotlib is imported only now."""
    module: Experiment = import_module(CATALOGUE[name].module)
    return module
