"""Networks the paper trains. Each takes its resolution and a width; None as width means the paper's."""

from fastdat.nets.mlp import MLP, MLPDiscriminator, MLPGenerator
from fastdat.nets.sngan import SNGANDiscriminator, SNGANGenerator

__all__ = ["MLP", "MLPDiscriminator", "MLPGenerator", "SNGANDiscriminator", "SNGANGenerator"]
