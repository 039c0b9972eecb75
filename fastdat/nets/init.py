"""Weight initialisation and spectral normalisation of the SNGAN family's layers, in the one order that is right."""

from __future__ import annotations

import math
from typing import TypeVar

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, nn.Embedding)

#: Gain of the residual branch's convolutions; shortcuts, linear layers and last convolutions use 1.
RESIDUAL_GAIN = math.sqrt(2.0)


def xavier(layer: Layer, gain: float = 1.0) -> Layer:
    """Draw ``layer.weight`` Xavier-uniform with ``gain`` and return the layer; a bias keeps torch's default."""
    nn.init.xavier_uniform_(layer.weight, gain)
    return layer


def normalised_xavier(layer: Layer, gain: float = 1.0) -> Layer:
    """:func:`xavier`, then torch's spectral normalisation of the weight.

    The draw must come first: the parametrization's first power iterations, which set ``_u`` and ``_v``, run on
    the weight they find.
    """
    xavier(layer, gain)
    spectral_norm(layer)
    return layer
