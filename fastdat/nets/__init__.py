"""The paper's networks and R3GAN's. Each takes a resolution and a width; the width None means the source's.

Around or at the end of a discriminator: an augmentation, gradient normalisation, and SAN's last layer.
"""

from fastdat.nets.augmentation import Augmented
from fastdat.nets.auxiliary import HasAuxiliaryLoss
from fastdat.nets.conditional import ConditionalSNGANDiscriminator, ConditionalSNGANGenerator
from fastdat.nets.dcgan import DCGANDiscriminator, DCGANGenerator
from fastdat.nets.gradient_normalised import GradientNormalised
from fastdat.nets.infomaxgan import InfoMaxGANDiscriminator, InfoMaxGANGenerator
from fastdat.nets.mlp import MLP, MLPDiscriminator, MLPGenerator
from fastdat.nets.r3gan import R3GANDiscriminator, R3GANGenerator
from fastdat.nets.san_linear import SANLinear
from fastdat.nets.shared_batch import JoinsSamples, share_batch
from fastdat.nets.sngan import SNGANDiscriminator, SNGANGenerator
from fastdat.nets.ssgan import SSGANDiscriminator, SSGANGenerator
from fastdat.nets.table3_nets import Table3Discriminator, Table3Generator

__all__ = [
    "MLP",
    "Augmented",
    "ConditionalSNGANDiscriminator",
    "ConditionalSNGANGenerator",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "GradientNormalised",
    "HasAuxiliaryLoss",
    "InfoMaxGANDiscriminator",
    "InfoMaxGANGenerator",
    "JoinsSamples",
    "MLPDiscriminator",
    "MLPGenerator",
    "R3GANDiscriminator",
    "R3GANGenerator",
    "SANLinear",
    "SNGANDiscriminator",
    "SNGANGenerator",
    "SSGANDiscriminator",
    "SSGANGenerator",
    "Table3Discriminator",
    "Table3Generator",
    "share_batch",
]
