"""``Points`` by plain autograd, and a discriminator for the terms' tests: float64, and no two of its sizes alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdat.losses import Loss, discriminator_loss, get_loss
from fastdat.regularizers.term import Bounds, Pair, Side, Term

M = 5
SHAPE = (3, 8, 6)


class Net(nn.Module):
    """Two convolutions and two heads; smooth, so that no sample lies on a kink."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1)
        self.conv2 = nn.Conv2d(4, 7, 3, 2, 1)
        self.head = nn.Linear(7, 1)
        self.direction = nn.Linear(7, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = F.softplus(self.conv2(torch.tanh(2 * self.conv1(x)))).sum((2, 3))
        return self.head(h), self.direction(h)


class Linear(nn.Module):
    """``w . x + b`` of samples (n, d)."""

    def __init__(self, weight: Sequence[float], bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def net_and_batch(m: int = M) -> tuple[Net, Tensor, Tensor]:
    """A D, reals and fakes (m, 3, 8, 6) in [-1, 1]."""
    D = Net().double()
    xr, xf = torch.rand(2, m, *SHAPE, dtype=torch.float64) * 1.6 - 0.8
    return D, xr, xf * 0.7 + 0.2


class EagerPoints:
    """D at the points of a step, or of a part of it.

    Args:
        D: the discriminator; it returns logits, or logits and further outputs.
        xr, xf: samples (n, ...).
        loss: of the step.
        bounds: of the data.
        count: m, where these are a part of more samples.
        answers: what ``total``, ``mean`` and ``greatest`` say of them all, in the order of the questions.
    """

    def __init__(
        self,
        D: nn.Module,
        xr: Tensor,
        xf: Tensor,
        loss: str = "gan",
        bounds: Bounds = None,
        count: int | None = None,
        answers: Sequence[Tensor] | None = None,
    ) -> None:
        self.D, self.bounds = D, bounds
        self.x = Pair(xr.detach().requires_grad_(), xf.detach().requires_grad_())
        found = get_loss(loss)
        assert isinstance(found, Loss)
        self.loss: Loss = found
        self.count = len(xr) if count is None else count
        self.answers = answers
        self.asked: list[tuple[str, Tensor]] = []

    def logits_of(self, x: Tensor) -> Tensor:
        out = self.D(x)
        return (out[0] if isinstance(out, tuple) else out).flatten()

    def logits(self) -> Pair:
        return Pair(*map(self.logits_of, self.x))

    def gradient(self, side: Side) -> Tensor:
        return self.linearised_at(side, getattr(self.x, side))[1]

    def gradient_at(self, side: Side, x: Tensor) -> Tensor:
        return self.linearised_at(side, x)[1]

    def linearised_at(
        self, side: Side, x: Tensor, seeds: Callable[[Tensor], Tensor] = torch.ones_like
    ) -> tuple[Tensor, Tensor]:
        x = x if x.requires_grad else x.requires_grad_()
        logits = self.logits_of(x)
        return logits, torch.autograd.grad(logits, x, seeds(logits.detach()), create_graph=True)[0]

    def loss_gradient(self) -> Pair:
        share = len(self.x.real) / self.count
        return Pair(*torch.autograd.grad(share * discriminator_loss(self.loss, *self.logits()), self.x))

    def loss_slopes(self, logits: Pair) -> Pair:
        raise NotImplementedError

    def extras(self) -> tuple[Pair, ...]:
        outputs = [self.D(x) for x in self.x]
        return () if isinstance(outputs[0], Tensor) else (Pair(outputs[0][1], outputs[1][1]),)

    def features(self, path: str) -> Pair:
        return self.features_at(path, *self.x)

    def features_at(self, path: str, xr: Tensor, xf: Tensor) -> Pair:
        found: list[Tensor] = []
        handle = self.D.get_submodule(path).register_forward_hook(lambda _m, _i, out: found.append(out))
        self.D(xr), self.D(xf)
        handle.remove()
        return Pair(*found)

    def call(self, xr: Tensor, xf: Tensor) -> Pair:
        return Pair(self.logits_of(xr), self.logits_of(xf))

    def call_side(self, side: Side, x: Tensor) -> Tensor:
        return self.logits_of(x)

    def total(self, values: Tensor) -> Tensor:
        return self._asked("sum", values.detach().sum(0))

    def mean(self, values: Tensor) -> Tensor:
        return self.total(values) / self.count

    def greatest(self, values: Tensor) -> Tensor:
        return self._asked("max", values.detach().max())

    def as_total(self, total: Tensor, here: Tensor) -> Tensor:
        return total.detach() + (self.count / len(self.x.real)) * (here - here.detach())

    def _asked(self, kind: str, here: Tensor) -> Tensor:
        self.asked.append((kind, here))
        return here if self.answers is None else self.answers[len(self.asked) - 1]


def gradients(value: Tensor, D: nn.Module) -> Tensor:
    """All parameter gradients of ``value`` as one vector; zeros where there is none."""
    parameters = list(D.parameters())
    found = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in found])


def in_parts(
    term: Term,
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    draws: Mapping[str, Tensor],
    sizes: Sequence[int],
    evaluate: Callable[[EagerPoints, Mapping[str, Tensor]], Tensor],
) -> Tensor:
    """The value from parts of the batch, as micro-batches compute it: first what all of them ask, then the answers."""
    parts = [
        (r, f, {**term.state(), **{name: rows[i] for name, rows in split.items()}})
        for split in [{name: drawn.split(list(sizes)) for name, drawn in draws.items()}]
        for i, (r, f) in enumerate(zip(xr.split(list(sizes)), xf.split(list(sizes)), strict=True))
    ]
    answers: list[Tensor] | None = None
    for _ in range(term.rounds):
        questions = []
        for r, f, given in parts:
            points = EagerPoints(D, r, f, count=len(xr), answers=answers)
            evaluate(points, given)
            questions.append(points.asked)
        answers = [
            torch.stack([here for _, here in asked]).sum(0)
            if asked[0][0] == "sum"
            else torch.stack([here for _, here in asked]).max()
            for asked in zip(*questions, strict=True)
        ]
    values = [
        len(r) / len(xr) * evaluate(EagerPoints(D, r, f, count=len(xr), answers=answers), given)
        for r, f, given in parts
    ]
    return torch.stack(values).sum()
