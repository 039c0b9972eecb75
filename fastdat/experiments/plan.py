"""What Fig. 3 compares: GANs on nine Gaussians without attack, with DAT, and with second-order DAT.

Choices the paper leaves open, found by experiment: six seeds, modes found of nine after 10k iterations, balanced /
imbalanced. ``bench/results/fig3`` holds the results of the first two rows; the third was a trial without a record.

| | no attack | DAT | DAT, second order |
|---|---|---|---|
| the default | 4.8 / 3.0 | 9.0 / 9.0 | 8.8 / 9.0 |
| ``init="torch"`` | 7.5 / 5.2 | 8.8 / 8.0 | 9.0 / 8.3 |
| ``bounds=(-1, 1)`` | - | 3.7 / 1.2 | 6.0 / 3.2 |

- ``bounds=None``: points have no range. DATConfig's own (-1, 1) cuts through the outer modes, which lie at +-1.
- Four hidden layers, drawn with Kaiming's scale, the one made for ReLU. Without attack such GANs lose modes as in
  Fig. 3. At torch's smaller default scale the plain GAN loses fewer, and DAT gains less over it.
- Standard deviation 0.1 (see ``mixture``), learning rate 1e-3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from fastdat.config import DATConfig
from fastdat.data.mixture import BALANCED, IMBALANCED
from fastdat.experiments.ensemble import Recipe
from fastdat.nets.mlp import Init
from fastdat.util.errors import ConfigError

#: Iterations of Fig. 3.
FULL = 10_000
MIXTURES = (BALANCED, IMBALANCED)
_DAT = DATConfig(bounds=None)
#: What is compared, by the name tables and files call it.
ARMS = {
    "no attack": replace(_DAT, real=False, fake=False),
    "DAT": _DAT,
    "DAT, second order": replace(_DAT, second_order=True),
}
#: Points generated for every measurement, and those of them that the picture shows.
MEASURED, SHOWN = 10_000, 2_000


@dataclass(frozen=True)
class Fig3Config:
    """What to run.

    Args:
        iterations: of each GAN; ``FULL`` is the paper's figure.
        seeds: GANs of each arm and mixture; their seeds are 0, 1, ...
        compile: compile the training steps: about twice as fast, after half a minute of compiling.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        init: initial weights, see :class:`fastdat.nets.mlp.MLP`.

    Raises:
        ConfigError: a value outside the above.
    """

    iterations: int = 3_000
    seeds: int = 6
    compile: bool = True
    device: str = "auto"
    init: Init = "kaiming"

    def __post_init__(self) -> None:
        for name, count in {"iterations": self.iterations, "seeds": self.seeds}.items():
            if count < 1:
                raise ConfigError(f"{name} must be at least 1; got {name}={count!r}")
        devices: tuple[str, ...] = ("auto", "cpu", "cuda")
        for name, value, allowed in (("device", self.device, devices), ("init", self.init, get_args(Init))):
            if value not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")

    @property
    def recipe(self) -> Recipe:
        return Recipe(init=self.init)

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Iterations the picture and the table show: 2k, 3k and the last, or thirds of a shorter run."""
        n = self.iterations
        shown = (2_000, 3_000, n) if n > 3_000 else (round(n / 3), round(2 * n / 3), n)
        return tuple(sorted({max(1, iteration) for iteration in shown}))

    @property
    def measurements(self) -> tuple[int, ...]:
        """Iterations at which coverage is measured: the checkpoints, and every twentieth part."""
        parts = {round(self.iterations * k / 20) for k in range(1, 21)} - {0}
        return tuple(sorted(parts | set(self.checkpoints)))
