"""Fig. 3: GANs on nine Gaussians without an attack, with DAT, and with second-order DAT.

The paper leaves some choices open. They were made by experiment. The table shows modes found of nine after 10,000
iterations, balanced / imbalanced, mean over ten seeds (``bench/results/fig3``).

| | no attack | DAT | DAT, second order |
|---|---|---|---|
| the default | 4.6 / 2.3 | 9.0 / 8.7 | 8.9 / 9.0 |
| ``init="torch"`` | 6.8 / 6.4 | 8.9 / 8.4 | 9.0 / 8.5 |

- ``bounds=None``, because points have no range. DATConfig's default (-1, 1) cuts through the outer modes at -1 and 1.
- Four hidden layers with Kaiming's initial scale, which is made for ReLU. Without an attack, such GANs lose modes as in
  Fig. 3. With torch's smaller default scale the plain GAN loses fewer, and DAT improves less on it.
- Standard deviation 0.1 (see :mod:`fastdat.data.mixture`) and learning rate 1e-3.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from fastdat.config import DATConfig
from fastdat.data.mixture import BALANCED, IMBALANCED
from fastdat.experiments.points.ensemble import Recipe
from fastdat.experiments.points.mixture_study import run_study
from fastdat.experiments.points.study import Study, StudyResult
from fastdat.nets.mlp import Init
from fastdat.training.build import choose_device
from fastdat.util.settings import PositiveInt, check_fields

#: Iterations of the paper's figure.
FULL = 10_000
MIXTURES = (BALANCED, IMBALANCED)
_DAT = DATConfig(bounds=None)
#: What is compared, by the names in tables and files.
ARMS = {
    "no attack": replace(_DAT, real=False, fake=False),
    "DAT": _DAT,
    "DAT, second order": replace(_DAT, second_order=True),
}


@dataclass(frozen=True)
class Fig3Config:
    """Settings of the experiment.

    Args:
        iterations: of each GAN; the paper's figure has ``FULL``.
        seeds: GANs of each arm and mixture; their seeds are 0, 1, ...
        compile: whether to compile the training steps: about twice as fast, after half a minute of compilation.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        init: initial weights, see :class:`fastdat.nets.mlp.MLP`.

    Raises:
        ConfigError: a value is out of range.
    """

    iterations: PositiveInt = 3_000
    seeds: PositiveInt = 6
    compile: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"
    init: Init = "kaiming"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def recipe(self) -> Recipe:
        """Nets and training of each GAN."""
        return Recipe(init=self.init)

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Iterations in picture and table: 2,000, 3,000 and the last; in a shorter run, thirds of it."""
        n = self.iterations
        shown = (2_000, 3_000, n) if n > 3_000 else (round(n / 3), round(2 * n / 3), n)
        return tuple(sorted({max(1, iteration) for iteration in shown}))

    @property
    def measurements(self) -> tuple[int, ...]:
        """Iterations after which coverage is measured: the checkpoints, and twenty at equal distances."""
        parts = {round(self.iterations * k / 20) for k in range(1, 21)} - {0}
        return tuple(sorted(parts | set(self.checkpoints)))

    @property
    def study(self) -> Study:
        """What is trained and measured."""
        return Study(
            name="fig3",
            arms=ARMS,
            mixtures=MIXTURES,
            seeds=self.seeds,
            iterations=self.iterations,
            measurements=self.measurements,
            checkpoints=self.checkpoints,
            recipe=self.recipe,
        )


def run(config: Fig3Config, outdir: str | Path) -> StudyResult:
    """Train all arms, or go on where an earlier run in ``outdir`` stopped; write the files, and print the page.

    The files are ``fig3.md``, ``fig3.json``, ``fig3.csv``, ``fig3.png`` and ``fig3.svg``; ``states/`` holds what a
    stopped run needs to go on.

    Raises:
        ConfigError: the config asks for a GPU and there is none.
        RunFolderError: ``outdir`` cannot be created or written, or holds a run with other settings.
        NonFiniteError: an arm diverged.
        ModuleNotFoundError: matplotlib or rich is missing; both come with ``fastdat[train]``.
    """
    from fastdat.experiments.points import (
        fig3_outputs,
    )  # imports matplotlib: fails before the work, not after

    outdir, device = Path(outdir), choose_device(config.device)
    result = run_study(config.study, device, config.compile, outdir)
    print(fig3_outputs.write(result, asdict(config), outdir))
    return result
