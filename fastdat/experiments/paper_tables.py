"""What the paper prints: Tables I, III and IV, and the numbers in its figures and its text.

Table II is in ``fastdat/report/table2.py``, since the report page shows it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainingRow:
    """A row of Table I.

    Args:
        dataset: its name in the paper.
        resolution: height and width of the images.
        batch_size: reals, and as many fakes, in one D step.
        lr, betas: of Adam.
        lr_decay: ``"linear"`` or ``"none"``.
        n_dis: D steps per G step.
        steps: G steps; "n_iter" in the table.
    """

    dataset: str
    resolution: int
    batch_size: int
    lr: float
    betas: tuple[float, float]
    lr_decay: Literal["linear", "none"]
    n_dis: int
    steps: int


#: Table I, in its order; the keys are fastdat's names of the data sets.
TABLE_I: dict[str, TrainingRow] = {
    "cifar10": TrainingRow("CIFAR-10", 32, 64, 2e-4, (0.0, 0.9), "linear", 5, 100_000),
    "cifar100": TrainingRow("CIFAR-100", 32, 64, 2e-4, (0.0, 0.9), "linear", 5, 100_000),
    "stl10": TrainingRow("STL-10", 48, 64, 2e-4, (0.0, 0.9), "linear", 5, 100_000),
    "tiny-imagenet": TrainingRow("Tiny-ImageNet", 64, 64, 2e-4, (0.0, 0.9), "none", 5, 100_000),
    "lsun-bedroom": TrainingRow("LSUN-Bedroom", 64, 64, 2e-4, (0.0, 0.9), "linear", 5, 100_000),
}

#: Columns of Table III, from left to right: fastdat's names of the arms (of :func:`fastdat.training.table3_config`)
#: and the heads in the table.
TABLE_III_ARMS: dict[str, str] = {
    "none": "None",
    "gp": "GP",
    "lp": "LP",
    "0gp": "0-GP",
    "ar": "AR",
    "rfm": "RFM",
    "asgan": "ASGAN",
    "dat": "DAT",
    "datt": "DATT",
}

_TABLE_III: dict[str, tuple[float, ...]] = {
    "gan": (30.20, 27.80, 27.25, 29.76, 29.37, 27.89, 27.24, 26.98, 26.77),
    "lsgan": (25.20, 24.40, 25.38, 28.67, 26.49, 26.05, 26.46, 24.38, 24.35),
    "wgan": (29.43, 26.03, 26.90, 43.06, 27.26, 26.83, 25.98, 25.67, 25.66),
}

#: Table III: loss -> arm -> train FID on CIFAR-10. No spread is printed.
TABLE_III: dict[str, dict[str, float]] = {
    loss: dict(zip(TABLE_III_ARMS, row, strict=True)) for loss, row in _TABLE_III.items()
}


@dataclass(frozen=True)
class PositionRow:
    """A row of Table IV: SNGAN on CIFAR-10, eps 1, one attack step, scores at the best FID of the training.

    Args:
        name: as in the table.
        real, fake, generator: where DAT is used: positions (i), (ii), (iii) of Fig. 10.
        scores: by the names of the table's columns.
    """

    name: str
    real: bool
    fake: bool
    generator: bool
    scores: dict[str, float]


#: Columns of Table IV's scores, from left to right.
TABLE_IV_SCORES = ("IS", "train FID", "test FID", "train KID", "test KID")


def _position(name: str, positions: str, *scores: float) -> PositionRow:
    where = positions.split()
    return PositionRow(
        name,
        real="i" in where,
        fake="ii" in where,
        generator="iii" in where,
        scores=dict(zip(TABLE_IV_SCORES, scores, strict=True)),
    )


#: Table IV, in its order.
TABLE_IV: dict[str, PositionRow] = {
    row.name: row
    for row in (
        _position("Baseline", "", 7.84, 19.75, 24.19, 0.0149, 0.0150),
        _position("Generator only", "iii", 1.59, 309, 310.5, 0.3836, 0.3822),
        _position("Real only", "i", 7.86, 19.48, 23.73, 0.0147, 0.0149),
        _position("Fake only", "ii", 7.84, 19.64, 24.1, 0.015, 0.0155),
        _position("Discriminator only", "i ii", 7.97, 17.93, 22.46, 0.0133, 0.0142),
        _position("All", "i ii iii", 1.62, 292, 294, 0.3603, 0.3605),
    )
}

# --- figures ---------------------------------------------------------------------------------------------------------

#: Distance within which Figs. 1 and 8 look for adversarial examples of a generated sample. The norm is not given.
FIG1_DELTA = 0.1
#: Mixtures of Fig. 3: all nine Gaussians have equal shares, or the columns have these, from left to right.
FIG3_IMBALANCED = (0.15, 0.05, 0.8)
#: Iterations whose samples Fig. 3 shows.
FIG3_ITERATIONS = (2_000, 3_000, 10_000)
#: Fig. 4: Adam's betas of its left part, the learning rate of its right part, and n_dis of both. The text names the
#: learning rates at which the vanilla DCGAN "cannot be trained" (Sec. IV-A); it prints no other point and no FID.
FIG4_BETAS, FIG4_LR, FIG4_N_DIS = (0.5, 0.999), 2e-4, 1
FIG4_FAILING_LRS = (1e-3, 2e-3, 5e-3)
#: Perturbation levels of Fig. 6, and the best of them, "around" which the optimum lies (Sec. V-A).
FIG6_EPS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 2.0, 3.0)
FIG6_BEST_EPS = 0.6
#: Perturbation levels and numbers of attack steps of Fig. 7, and its best point (eps, K) (Sec. V-B).
FIG7_EPS, FIG7_STEPS = (0.6, 1.0), (1, 2, 3, 4, 5)
FIG7_BEST = (0.6, 2)
#: Fig. 9 (a), and Sec. IV-D: average steps of PGD until a D without DAT changes its mind. The text prints "3.2 and
#: 3.88"; that fakes come first is the order of the caption. Those of Fig. 9 (b), with DAT, are not in the text.
FIG9_STEPS_WITHOUT_DAT = {"fake": 3.2, "real": 3.88}

# --- percentages in the text -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Improvement:
    """By how many percent DAT lowers a model's train FID, as the text says; rounded to one decimal.

    Args:
        where: in the paper.
        model: column of Table II without DAT.
        percent: data set -> percent.
    """

    where: str
    model: str
    percent: dict[str, float]


#: What the text says about Table II.
IMPROVEMENTS: tuple[Improvement, ...] = (
    Improvement(
        "Sec. IV-B",
        "SNGAN",
        {"cifar10": 9.2, "cifar100": 11.0, "stl10": 3.7, "tiny-imagenet": 7.9, "lsun-bedroom": 11.6},
    ),
    Improvement(
        "Sec. IV-B",
        "SSGAN",
        {"cifar10": 8.4, "cifar100": 11.5, "stl10": 10.5, "tiny-imagenet": 4.5, "lsun-bedroom": 13.2},
    ),
    Improvement("Abstract", "SSGAN", {"cifar100": 11.5, "stl10": 10.5, "lsun-bedroom": 13.2}),
)
