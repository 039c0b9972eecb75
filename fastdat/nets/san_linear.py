"""SAN (Takida et al. 2024, "SAN: Inducing Metrizability of GAN with Discriminative Normalized Linear Layer")."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdat.nets import plans


class SANLinear(nn.Module):
    """The last layer of a SAN's D: features (N, in_features) -> logits (N, 1), in training with the direction's values.

    The weight is ``s * omega`` with ``||omega|| = 1``, and the bias b is added to the features h. In training mode the
    output is a pair, which D returns as it is::

        fun = s <h + b, stop(omega)>        (N, 1), the logits: they train h, b and s, and G
        dir = stop(s) <stop(h + b), omega>  (N, 1): they train omega alone

    The loss sees ``fun``. The regularizer ``SAN``, ``mean dir(x_f) - mean dir(x_r)``, turns omega to where reals and
    fakes are furthest apart; without it, omega does not learn. ``fastdat.dat_step`` takes D's first output for the
    logits and gives the second to the terms; G's step takes the first, ``D(x)[0]``. In evaluation mode the output is
    the logits alone, and everything learns from them.

    ``omega = weight / ||weight||`` is computed in each call, so nothing must be done after an optimizer's step. (The
    released code also makes the weight's length 1 after each step. The length does not change the output, and no
    gradient reaches it; but each step makes it a little longer, and a longer weight turns more slowly.) The values and
    their start are those of the released code: ``s`` begins as the length of a linear layer's usual weight, b as zero.

    Args:
        in_features: number of features of a sample.
        bias: whether there is a b.

    Raises:
        ValueError: no features.
    """

    def __init__(self, in_features: int, bias: bool = True) -> None:
        super().__init__()
        plans.require_positive(in_features=in_features)
        self.in_features = in_features
        weight = nn.Linear(in_features, 1, bias=False).weight.detach()
        self.weight = nn.Parameter(F.normalize(weight, dim=1))
        self.scale = nn.Parameter(torch.linalg.vector_norm(weight).reshape(1))
        self.bias = nn.Parameter(torch.zeros(in_features)) if bias else None

    def forward(self, h: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.bias is not None:
            h = h + self.bias
        omega = F.normalize(self.weight, dim=1)  # (1, in_features)
        if not self.training:
            return self.scale * F.linear(h, omega)
        return (
            self.scale * F.linear(h, omega.detach()),
            self.scale.detach() * F.linear(h.detach(), omega),
        )
