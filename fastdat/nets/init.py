"""Weight initialisation and spectral normalisation of the SNGAN family's layers, in this order."""

from __future__ import annotations

import math
from typing import TypeVar

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, nn.Embedding)

#: Gain of the convolutions in residual branches. Shortcuts, linear layers and last convolutions use 1.
RESIDUAL_GAIN = math.sqrt(2.0)


def xavier(layer: Layer, gain: float = 1.0) -> Layer:
    """Draw ``layer.weight`` Xavier-uniform with ``gain`` and return the layer. The bias keeps torch's default."""
    nn.init.xavier_uniform_(layer.weight, gain)
    return layer


def normalised_xavier(layer: Layer, gain: float = 1.0) -> Layer:
    """Apply :func:`xavier`, then torch's spectral normalisation.

    The order matters: the parametrization initialises ``_u`` and ``_v`` by power iterations on the present weight.
    """
    xavier(layer, gain)
    spectral_norm(layer)
    return layer
