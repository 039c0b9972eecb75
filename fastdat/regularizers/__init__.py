"""Regularizers of D: terms of its loss, and other attacks than DAT's, computed in the one graph of a step."""

from fastdat.regularizers.augmentation_consistency import BCR as BCR
from fastdat.regularizers.augmentation_consistency import CR as CR
from fastdat.regularizers.clip_weights import clip_weights_ as clip_weights_
from fastdat.regularizers.consistency import AR as AR
from fastdat.regularizers.consistency import RFM as RFM
from fastdat.regularizers.cost import cost as cost
from fastdat.regularizers.diggan import DigGAN as DigGAN
from fastdat.regularizers.finite_difference import ApproxR1 as ApproxR1
from fastdat.regularizers.finite_difference import ApproxR2 as ApproxR2
from fastdat.regularizers.gradient_penalty import DRAGAN as DRAGAN
from fastdat.regularizers.gradient_penalty import GP as GP
from fastdat.regularizers.gradient_penalty import LP as LP
from fastdat.regularizers.gradient_penalty import R1 as R1
from fastdat.regularizers.gradient_penalty import R2 as R2
from fastdat.regularizers.gradient_penalty import GradientPenalty as GradientPenalty
from fastdat.regularizers.gradient_penalty import ZeroGP as ZeroGP
from fastdat.regularizers.lecam import LeCam as LeCam
from fastdat.regularizers.lipschitz import ALP as ALP
from fastdat.regularizers.max_gradient import MaxGP as MaxGP
from fastdat.regularizers.san import SAN as SAN
from fastdat.regularizers.sign_attacks import ASGAN as ASGAN
from fastdat.regularizers.sign_attacks import RobGAN as RobGAN
from fastdat.regularizers.term import Needs as Needs
from fastdat.regularizers.term import Pair as Pair
from fastdat.regularizers.term import Points as Points
from fastdat.regularizers.term import Term as Term
