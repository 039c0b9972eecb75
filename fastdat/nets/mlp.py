"""Multi-layer perceptrons for points: the generator and discriminator of the nine Gaussians (Sec. IV-A, Fig. 3)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

Init = Literal["kaiming", "torch"]


class MLP(nn.Sequential):
    """``layers`` hidden layers of ``hidden`` ReLU units and a linear output layer: (N, inputs) -> (N, outputs).

    Args:
        inputs: number of input features.
        outputs: number of output features.
        hidden: units per hidden layer.
        layers: number of hidden layers.
        init: ``"kaiming"`` draws weights from N(0, 2 / fan_in) and sets biases to 0, the right scale for ReLU.
            ``"torch"`` is the default of ``nn.Linear``, with which the signal shrinks by about sqrt 6 per layer.
        generator: draws the weights. None means torch's global generator, which is otherwise left alone.

    Raises:
        ValueError: a size below 1, or unknown ``init``.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        hidden: int = 64,
        layers: int = 4,
        init: Init = "kaiming",
        generator: torch.Generator | None = None,
    ) -> None:
        sizes = {"inputs": inputs, "outputs": outputs, "hidden": hidden, "layers": layers}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} of an MLP must be at least 1; got {name}={size!r}")
        if init not in get_args(Init):
            raise ValueError(f"init must be one of {', '.join(map(repr, get_args(Init)))}; got {init!r}")
        widths = [inputs, *[hidden] * layers]
        modules: list[nn.Module] = []
        for n_in, n_out in zip(widths, [*widths[1:], outputs], strict=True):
            modules += [_linear(n_in, n_out, init, generator), nn.ReLU()]
        super().__init__(*modules[:-1])


class MLPGenerator(MLP):
    """z (N, nz), drawn from N(0, I), -> points (N, dim). The other arguments are those of :class:`MLP`."""

    def __init__(
        self,
        nz: int = 16,
        dim: int = 2,
        *,
        hidden: int = 64,
        layers: int = 4,
        init: Init = "kaiming",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(nz, dim, hidden=hidden, layers=layers, init=init, generator=generator)
        self.nz = nz


class MLPDiscriminator(MLP):
    """Points (N, dim) -> logits (N,). The other arguments are those of :class:`MLP`."""

    def __init__(
        self,
        dim: int = 2,
        *,
        hidden: int = 64,
        layers: int = 4,
        init: Init = "kaiming",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(dim, 1, hidden=hidden, layers=layers, init=init, generator=generator)

    def forward(self, input: Tensor) -> Tensor:
        for layer in self:
            input = layer(input)
        return input.squeeze(1)  # (N, 1) -> (N,)


def _linear(n_in: int, n_out: int, init: Init, generator: torch.Generator | None) -> nn.Linear:
    """A linear layer drawn from ``generator``. ``nn.Linear`` itself would draw from the global generator."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, n_in, n_out)
    if init == "kaiming":
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
    else:
        bound = n_in**-0.5
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer
