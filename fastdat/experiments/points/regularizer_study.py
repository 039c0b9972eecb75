"""Regularizers and other attacks beside DAT on nine Gaussians, for losses of one's choice.

The nets and their training are those of Fig. 3 (:mod:`fastdat.experiments.points.fig3`). The paper compares these
methods on images (Table III); it has no such table for points. Weights are those of the methods' papers or code, but
lengths are chosen for these points: eps of ASGAN and AR, and xi and lengths of ALP. Points have no range, so nothing is
clipped.

RFM and LeCam are left out: RFM looks at a layer of D and LeCam keeps a state, which stacked GANs cannot.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from fastdat.config import DATConfig
from fastdat.data.mixture import BALANCED, IMBALANCED
from fastdat.experiments.points.ensemble import Attack, Recipe
from fastdat.experiments.points.mixture_study import run_study
from fastdat.experiments.points.study import Study, StudyResult
from fastdat.losses import LOSSES
from fastdat.regularizers.consistency import AR
from fastdat.regularizers.diggan import DigGAN
from fastdat.regularizers.finite_difference import ApproxR1, ApproxR2
from fastdat.regularizers.gradient_penalty import GP, LP, ZeroGP
from fastdat.regularizers.lipschitz import ALP
from fastdat.regularizers.sign_attacks import ASGAN, RobGAN
from fastdat.regularizers.term import Term
from fastdat.training.build import choose_device
from fastdat.util.errors import ConfigError, RunFolderError
from fastdat.util.settings import PositiveInt, check_fields

MIXTURES = (BALANCED, IMBALANCED)
_DAT = DATConfig(bounds=None)
_NONE = replace(_DAT, real=False, fake=False)
_BOTH = ZeroGP("both", 0.1)
#: What is compared: name -> attack and terms of D's loss.
ARMS: dict[str, tuple[Attack, tuple[Term, ...]]] = {
    "none": (_NONE, ()),
    "GP 10": (_NONE, (GP(10.0),)),
    "LP 10": (_NONE, (LP(10.0),)),
    "0-GP real 10": (_NONE, (ZeroGP("real", 10.0),)),
    "0-GP both 0.1": (_NONE, (_BOTH,)),
    "AR 10": (_NONE, (AR(eps=1e-2),)),
    "ALP 10": (_NONE, (ALP(xi=1.0, lengths=(0.01, 1.0)),)),
    "aR1 + aR2 100": (_NONE, (ApproxR1(100.0), ApproxR2(100.0))),
    "DigGAN 10": (_NONE, (DigGAN(10.0),)),
    "ASGAN": (ASGAN(eps=2 / 255, bounds=None), ()),
    "RobGAN": (RobGAN(bounds=None), ()),
    "DAT": (_DAT, ()),
    "DATT": (replace(_DAT, clean_weight=1.0), ()),
    "DAT, second order": (replace(_DAT, second_order=True), ()),
    "DAT + 0-GP both 0.1": (_DAT, (_BOTH,)),
}
#: The arms of a quick run.
QUICK = ("none", "DAT", "0-GP both 0.1", "DAT + 0-GP both 0.1")


@dataclass(frozen=True)
class RegularizersConfig:
    """Settings of the experiment.

    Args:
        iterations: of each GAN.
        seeds: GANs of each arm and mixture; their seeds are 0, 1, ...
        losses: names of ``fastdat.losses.LOSSES``; all arms are trained with each.
        quick: only the arms of ``QUICK``.
        compile: whether to compile the training steps: about three times as fast, after ten seconds of compilation for
            each arm.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises:
        ConfigError: a value is out of range.
    """

    iterations: PositiveInt = 2_500
    seeds: PositiveInt = 4
    losses: tuple[str, ...] = ("gan", "wgan")
    quick: bool = False
    compile: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        check_fields(self)
        unknown = [loss for loss in self.losses if loss not in LOSSES]
        if unknown or len(set(self.losses)) < len(self.losses):
            raise ConfigError(
                f"losses must be different names of {', '.join(LOSSES)}; got {', '.join(self.losses)}"
            )

    @property
    def studies(self) -> tuple[Study, ...]:
        """What is trained and measured, a study for each loss."""
        return tuple(self._study(loss) for loss in self.losses)

    def _study(self, loss: str) -> Study:
        names = QUICK if self.quick else tuple(ARMS)
        parts = {round(self.iterations * k / 5) for k in range(1, 6)} - {0}
        return Study(
            name=f"regularizers, {loss}",
            arms={name: ARMS[name][0] for name in names},
            mixtures=MIXTURES,
            seeds=self.seeds,
            iterations=self.iterations,
            measurements=tuple(sorted(parts)),
            checkpoints=(),
            recipe=Recipe(loss=loss),
            regularizers={name: ARMS[name][1] for name in names},
        )


def run(config: RegularizersConfig, outdir: str | Path) -> tuple[StudyResult, ...]:
    """Train all arms with each loss, write ``regularizers.json`` and ``regularizers.md``, and print the tables.

    Both files are written after each loss, so that a run which ends early leaves what it had finished; the same call
    goes on from there.

    Raises:
        ConfigError: the config asks for a GPU and there is none.
        RunFolderError: ``outdir`` cannot be created or written, or holds a run with other settings.
        NonFiniteError: an arm diverged.
        ModuleNotFoundError: rich is missing; it comes with ``fastdat[train]``.
    """
    from fastdat.experiments.points import regularizer_outputs

    outdir, device = Path(outdir), choose_device(config.device)
    try:
        outdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"cannot use {outdir} as output folder: {error.strerror or error}") from error
    results: list[StudyResult] = []
    for study in config.studies:
        results.append(run_study(study, device, config.compile, outdir))
        regularizer_outputs.write(results, asdict(config), outdir)
    print(regularizer_outputs.markdown(results))
    return tuple(results)
