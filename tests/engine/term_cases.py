"""Every regularizer, with settings under which its branches count for a small D, and a stand-in for its draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from fastdat.regularizers import (
    ALP,
    AR,
    BCR,
    CR,
    DRAGAN,
    GP,
    LP,
    R1,
    R2,
    RFM,
    SAN,
    ApproxR1,
    ApproxR2,
    DigGAN,
    LeCam,
    MaxGP,
    ZeroGP,
)
from fastdat.regularizers.term import Needs, Pair, Points, Tensors, Term

TERMS: dict[str, Callable[[], Term]] = {
    "gp": lambda: GP(3.0, target=0.3),
    "lp": lambda: LP(7.0, target=0.05),
    "r1": lambda: R1(2.5),
    "r2": lambda: R2(1.5),
    "0gp-real": lambda: ZeroGP("real", 4.0),
    "0gp-fake": lambda: ZeroGP("fake", 4.0),
    "0gp-both": lambda: ZeroGP("both", 4.0),
    "0gp-between": lambda: ZeroGP("between", 4.0),
    "dragan": lambda: DRAGAN(2.0, target=0.4),
    "ar": lambda: AR("logits", eps=0.3),
    "ar-output": lambda: AR("output", eps=0.3, batch=None),
    "rfm": lambda: RFM("conv2", eps=0.3),
    "alp": lambda: ALP(5.0, target=0.02, xi=1.5, lengths=(0.2, 0.9)),
    "ar1": lambda: ApproxR1(3.0, sigma=0.2),
    "ar2": lambda: ApproxR2(3.0, sigma=0.2),
    "cr": lambda: CR(2.0),
    "bcr": lambda: BCR(2.0, fake_ratio=0.6),
    "lecam": lambda: LeCam(2.0, decay=0.7, start=0),
    "diggan": lambda: DigGAN(6.0),
    "maxgp": lambda: MaxGP(2.0),
    "san": lambda: SAN(0.8),
}


class Direction(nn.Module):
    """D with a further output (n, 1), which SAN trains."""

    def __init__(self, D: nn.Module) -> None:
        super().__init__()
        self.D, self.direction = D, nn.Linear(3, 1).double()

    def forward(self, x: Tensor, *args: Tensor) -> tuple[Tensor, ...]:
        logits, *others = out if isinstance(out := self.D(x, *args), tuple) else (out,)
        return logits, self.direction(x.mean((2, 3))), *others


class Drawn(Term):
    """A regularizer with random numbers that are given; a user's own term, by its class."""

    def __init__(self, term: Term, draws: Tensors) -> None:
        self.term, self.drawn = term, draws
        self.every, self.couples, self.rounds = term.every, term.couples, term.rounds  # type: ignore[misc]

    @property
    def name(self) -> str:
        return self.term.name

    @property
    def weight(self) -> float | Tensor:
        return self.term.weight

    @property
    def needs(self) -> Needs:
        return self.term.needs

    def draws(self, x: Pair, generator: torch.Generator | None) -> Tensors:
        return self.drawn

    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        return self.term.value(points, given)

    def state(self) -> Tensors:
        return self.term.state()

    def advanced(self, points: Points, given: Mapping[str, Tensor]) -> Tensors:
        return self.term.advanced(points, given)


def drawn(name: str, x: Pair, rows: slice = slice(None), seed: int = 3) -> Drawn:
    """The regularizer ``name`` with the same random numbers for equal ``x``, or these ``rows`` of them."""
    term = TERMS[name]()
    draws = term.draws(x, torch.Generator().manual_seed(seed))
    return Drawn(term, {key: values[rows] for key, values in draws.items()})
