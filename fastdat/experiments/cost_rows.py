"""The discriminator steps whose costs are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastdat.config import NO_ATTACK, DATConfig
from fastdat.regularizers.augmentation_consistency import BCR, CR
from fastdat.regularizers.consistency import AR, RFM
from fastdat.regularizers.diggan import DigGAN
from fastdat.regularizers.finite_difference import ApproxR1, ApproxR2
from fastdat.regularizers.gradient_penalty import GP, R1, R2, ZeroGP
from fastdat.regularizers.lecam import LeCamSettings
from fastdat.regularizers.lipschitz import ALP
from fastdat.regularizers.san import SAN
from fastdat.regularizers.sign_attacks import ASGAN, RobGAN
from fastdat.regularizers.term_registry import TermDescription


@dataclass(frozen=True)
class CostRow:
    """A discriminator step.

    Args:
        label: of its row.
        attack: its attack.
        terms: its regularizers.
        loss: its loss.
        brief: it is compiled in a scaled-down run too.
        head: what becomes of D: ``"gn"`` normalises its gradient, ``"san"`` has SAN's last layer.
    """

    label: str
    attack: DATConfig | ASGAN | RobGAN
    terms: tuple[TermDescription, ...] = ()
    loss: str = "hinge"
    brief: bool = False
    head: Literal["plain", "gn", "san"] = "plain"


# Labels of the rows that findings are about.
PLAIN, DAT, DATT, SECOND = "no attack", "DAT", "DATT", "DAT, second order"
R1_R2, DAT_R1_R2, SECOND_R1_R2 = "R1 + R2", "DAT + R1 + R2", "DAT, second order, + R1 + R2"

_BOTH, _SECOND = (R1(), R2()), DATConfig(second_order=True)
#: In the order of the table. GP stands for LP and DRAGAN too, and R1 for R2: they multiply equally often.
COST_ROWS = (
    CostRow(PLAIN, NO_ATTACK, brief=True),
    CostRow(DAT, DATConfig(), brief=True),
    CostRow(SECOND, _SECOND, brief=True),
    CostRow(DATT, DATConfig(clean_weight=1.0), brief=True),
    CostRow("DATT, second order", DATConfig(clean_weight=1.0, second_order=True)),
    CostRow("GP, LP or DRAGAN", NO_ATTACK, (GP(),), "wgan", brief=True),
    CostRow("0-GP between", NO_ATTACK, (ZeroGP("between"),)),
    CostRow("R1 or R2", NO_ATTACK, (R1(),)),
    CostRow(R1_R2, NO_ATTACK, _BOTH, brief=True),
    CostRow("DigGAN", NO_ATTACK, (DigGAN(),)),
    CostRow(DAT_R1_R2, DATConfig(), _BOTH, brief=True),
    CostRow(SECOND_R1_R2, _SECOND, _BOTH, brief=True),
    CostRow("ASGAN", ASGAN()),
    CostRow("RobGAN, 5 steps", RobGAN()),
    CostRow("AR", NO_ATTACK, (AR(),)),
    CostRow("RFM", NO_ATTACK, (RFM("blocks.3.conv2"),)),
    CostRow("ALP", NO_ATTACK, (ALP(),)),
    CostRow("aR1", NO_ATTACK, (ApproxR1(),)),
    CostRow("aR1 + aR2", NO_ATTACK, (ApproxR1(), ApproxR2())),
    CostRow("CR", NO_ATTACK, (CR(),)),
    CostRow("bCR", NO_ATTACK, (BCR(),)),
    CostRow("LeCam", NO_ATTACK, (LeCamSettings(start=0),)),
    CostRow("RpGAN", NO_ATTACK, (), "rpgan"),
    CostRow("gradient normalisation", NO_ATTACK, head="gn"),
    CostRow("SAN", NO_ATTACK, (SAN(),), head="san"),
)
