"""The experiments by name, as ``fastdat reproduce NAME`` runs them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from fastdat.util.errors import ConfigError
from fastdat.util.settings import PositiveInt, ReadBy, check_fields

if TYPE_CHECKING:  # it imports matplotlib, and the command line lists the experiments without it
    from fastdat.experiments.outcome import Outcome


def _texts(name: str, value: Any) -> tuple[str, ...]:
    """A list of text, which may be empty, unlike other lists of settings."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) for text in value):
        raise ConfigError(f"{name} must be a list of text; got {value!r}")
    return tuple(value)


@dataclass(frozen=True)
class Options:
    """How an experiment is run; what each does not need has no effect on it.

    Args:
        quick: scaled down, so that it takes at most 15 minutes on two cores; else the paper's full length.
        seeds: independent runs of each arm, with the seeds 0, 1, ...; None: as many as the paper has, or a few.
        data: folder of the images.
        only: parts of arms' names, or whole names: see :mod:`fastdat.experiments.arm_choice`; all arms if empty.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        compile: compile the steps.

    Raises:
        ConfigError: a value of the wrong type or outside its range.
    """

    quick: bool = True
    seeds: PositiveInt | None = None
    data: str | None = None
    only: Annotated[tuple[str, ...], ReadBy(_texts)] = ()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = True

    def __post_init__(self) -> None:
        check_fields(self)


class Experiment(Protocol):
    """A module of an experiment, or an object in one."""

    def run(self, options: Options, folder: Path) -> Outcome:
        """Train what is needed, or go on where an earlier run in ``folder`` stopped, and measure it."""
        ...


@dataclass(frozen=True)
class Entry:
    """An experiment in the catalogue.

    Args:
        module: where its ``run`` is: a module, or ``"module:object"`` for an object in one.
        summary: one sentence for ``--help``.
        data: the data set that ``--data`` has to hold; None if it needs none.
    """

    module: str
    summary: str
    data: str | None = None


CATALOGUE: dict[str, Entry] = {
    "table1": Entry(
        "fastdat.experiments.table1",
        "Table I: the settings of the training beside those of the presets. Nothing is trained.",
    ),
    "table-cost": Entry(
        "fastdat.experiments.cost_table",
        "FLOPs, time and memory of a discriminator step with DAT and with what it is compared with.",
    ),
    "table2": Entry(
        "fastdat.experiments.images.table2_images",
        "Table II: FID, KID and IS with and without DAT. With --full, --data holds all five data sets.",
        data="CIFAR-10",
    ),
    "table4-images": Entry(
        "fastdat.experiments.images.table4_images",
        "Table IV on images: DAT at three places. --quick: a thin DCGAN; --full: SNGAN, the same as table4 --full.",
        data="CIFAR-10",
    ),
    "fig4": Entry(
        "fastdat.experiments.images.fig4",
        "Fig. 4: DCGAN with and without DAT over learning rates and Adam's betas.",
        data="CIFAR-10",
    ),
    "fig5": Entry(
        "fastdat.experiments.images.fig5_images",
        "Fig. 5: images of 0-GP and of DAT with the WGAN loss, side by side.",
        data="CIFAR-10",
    ),
    "fig11": Entry(
        "fastdat.experiments.images.fig11",
        "Figs. 11 and 12: uncurated images of SSGAN and SSGAN-DAT. With --full, --data holds four data sets.",
        data="CIFAR-10",
    ),
    "fig1": Entry(
        "fastdat.experiments.images.fig1",
        "Fig. 1: the share of generated samples that have an adversarial example of G, over the training.",
        data="CIFAR-10",
    ),
    "fig8": Entry(
        "fastdat.experiments.images.fig8",
        "Fig. 8: the same as Fig. 1, with and without DAT. It takes the runs of runs/fig1.",
        data="CIFAR-10",
    ),
    "fig9": Entry(
        "fastdat.experiments.images.pgd_flip",
        "Fig. 9: how many PGD steps D's verdict survives, with and without DAT.",
        data="MNIST",
    ),
    "lipschitz": Entry(
        "fastdat.experiments.images.lipschitz_study",
        "The claim of Sec. III-C: how steep D is while it trains, without attack, with 0-GP and with DAT.",
        data="CIFAR-10",
    ),
    "fig6": Entry(
        "fastdat.experiments.points.fig6",
        "Fig. 6: the perturbation level eps. --quick trains on nine Gaussians; --full needs CIFAR-10 as --data.",
    ),
    "fig7": Entry(
        "fastdat.experiments.points.fig7",
        "Fig. 7: the number of attack steps K. --quick trains on nine Gaussians; --full needs CIFAR-10 as --data.",
    ),
    "table3": Entry(
        "fastdat.experiments.points.table3",
        "Table III: other regularizers beside DAT. --quick trains on nine Gaussians; --full needs CIFAR-10 as --data.",
    ),
    "table4": Entry(
        "fastdat.experiments.points.table4",
        "Table IV: DAT at three places. --quick trains on nine Gaussians; --full needs CIFAR-10 as --data.",
    ),
    "evidence": Entry(
        "fastdat.experiments.evidence.protocol:DCGAN",
        "Not in the paper: KID of thin DCGANs over the training, six arms with spread. --full is docs/evidence.md.",
        data="CIFAR-10",
    ),
    "evidence-sngan": Entry(
        "fastdat.experiments.evidence.protocol:SNGAN",
        "Not in the paper: the same for thin SNGANs, three arms.",
        data="CIFAR-10",
    ),
    "evidence-wgan": Entry(
        "fastdat.experiments.evidence.protocol:WGAN",
        "Not in the paper: the same for DCGAN with the WGAN loss, four arms.",
        data="CIFAR-10",
    ),
    "evidence-rates": Entry(
        "fastdat.experiments.evidence.protocol:RATES",
        "Not in the paper: the same for five learning rates, without and with DAT.",
        data="CIFAR-10",
    ),
    "evidence-strength": Entry(
        "fastdat.experiments.evidence.protocol:STRENGTH",
        "Not in the paper: the same for five perturbation levels of DAT and second-order DAT.",
        data="CIFAR-10",
    ),
    "evidence-points": Entry(
        "fastdat.experiments.evidence.ring_and_grid",
        "Not in the paper: six arms on a ring of 8 and a grid of 25 Gaussians.",
    ),
}


def load(name: str) -> Experiment:
    """The experiment called ``name``; matplotlib is imported only now."""
    module, _, within = CATALOGUE[name].module.partition(":")
    found: Experiment = import_module(module)
    return getattr(found, within) if within else found
