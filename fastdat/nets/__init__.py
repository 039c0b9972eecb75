"""The paper's networks. Each takes a resolution and a width; the width None means the paper's. And an augmentation."""

from fastdat.nets.augmentation import Augmented
from fastdat.nets.auxiliary import HasAuxiliaryLoss
from fastdat.nets.conditional import ConditionalSNGANDiscriminator, ConditionalSNGANGenerator
from fastdat.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from fastdat.nets.infomaxgan import InfoMaxGANDiscriminator, InfoMaxGANGenerator
from fastdat.nets.mlp import MLP, MLPDiscriminator, MLPGenerator
from fastdat.nets.sngan import SNGANDiscriminator, SNGANGenerator
from fastdat.nets.ssgan import SSGANDiscriminator, SSGANGenerator

__all__ = [
    "MLP",
    "Augmented",
    "ConditionalSNGANDiscriminator",
    "ConditionalSNGANGenerator",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "HasAuxiliaryLoss",
    "InfoMaxGANDiscriminator",
    "InfoMaxGANGenerator",
    "MLPDiscriminator",
    "MLPGenerator",
    "SNGANDiscriminator",
    "SNGANGenerator",
    "SSGANDiscriminator",
    "SSGANGenerator",
]
