"""What dat_step refuses of regularizers, attacks and pair losses, each with what was given and what to do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig
from fastdat.regularizers import AR, CR, GP, R1, RFM, SAN, LeCam, RobGAN
from fastdat.regularizers.term import Needs, Points, Term
from tests.discriminators import batch, make


@dataclass(frozen=True)
class Own(Term):
    """A user's term; what it needs, and what it does."""

    needs: Needs = Needs()  # noqa: RUF009
    function: Callable[[Points], Tensor] = lambda points: points.logits().real.mean()
    weight: float = 1.0
    every: int = 1
    more: list[int] | None = field(default=None)

    name = "own"

    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        return self.function(points)


class Wrapped(nn.Module):
    """A D with submodules that a regularizer cannot look at."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.unused, self.pooled = make("conv"), nn.Linear(3, 3).double(), Summed()
        self.tuples = Tuples()

    def forward(self, x: Tensor) -> Tensor:
        self.tuples(x)
        return self.body(x) + self.pooled(x)


class Summed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum() * 0


class Tuples(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class OfPairs:
    """A pair loss with its mean inside."""

    def pair(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        return (logits_real - logits_fake).mean()


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "one term": (
        {"regularizers": R1()},
        TypeError,
        r"must be a tuple of terms, got one: write regularizers=\(R1",
    ),
    "a class": ({"regularizers": (R1,)}, TypeError, r"the class R1 itself: make one, R1\(\)"),
    "a name": ({"regularizers": "r1"}, TypeError, r"must be a tuple of terms, such as .*, got str"),
    "an attack": (
        {"regularizers": (RobGAN(),)},
        TypeError,
        r"got RobGAN: an attack is the argument\s+config",
    ),
    "a function": ({"regularizers": (torch.relu,)}, TypeError, r"another loss of D is the argument aux_loss"),
    "a term as config": ({"config": GP()}, TypeError, r"got GP: a regularizer is given as regularizers=\(GP"),
    "the class of an attack": ({"config": RobGAN}, TypeError, r"class itself: write RobGAN\(\)"),
    "cannot be hashed": (
        {"regularizers": (Own(more=[]),)},
        TypeError,
        r"must be hashable, .* make Own a frozen",
    ),
    "no step": (
        {"regularizers": (R1(every=4),)},
        ValueError,
        r"R1 takes part in one step of 4: pass the number",
    ),
    "a step that is a tensor": (
        {"regularizers": (R1(),), "step": torch.tensor(1)},
        TypeError,
        r"an int >= 0, got",
    ),
    "a negative step": (
        {"regularizers": (R1(),), "step": -1},
        TypeError,
        r"step must be the number of the step",
    ),
    "a seed as generator": (
        {"regularizers": (GP(),), "generator": 3},
        TypeError,
        r"torch.Generator or None, got int",
    ),
    "no such submodule": (
        {"regularizers": (RFM("conv9"),)},
        ValueError,
        r"no submodule 'conv9'.*There are: body",
    ),
    "a submodule that does not run": (
        {"regularizers": (RFM("unused"),)},
        ValueError,
        r"'unused'.*does not run when D",
    ),
    "one output for all": (
        {"regularizers": (RFM("pooled"),)},
        ValueError,
        r"one row a sample, \(4, ...\), got",
    ),
    "a tuple": (
        {"regularizers": (RFM("tuples"),)},
        ValueError,
        r"'tuples'.*got tuple: name another submodule",
    ),
    "no further output": ({"regularizers": (SAN(),)}, ValueError, r"san needs a further output of D"),
    **{
        f"a need that is not named: {need}": (
            {"regularizers": (Own(function=function),)},
            TypeError,
            r"own takes .*, which its `needs` does not name: Needs\(" + need,
        )
        for need, function in {
            "logits": lambda points: points.logits().real.mean(),
            'gradient=."real"': lambda points: points.gradient("real").mean(),
            'gradient=."fake"': lambda points: points.gradient("fake").mean(),
            "loss_gradient": lambda points: points.loss_gradient().real.mean(),
            'features="body"': lambda points: points.features("body").real.mean(),
            "extras": lambda points: points.extras()[0].real.mean(),
            "second_order": lambda points: points.gradient_at("fake", points.x.fake).mean(),
        }.items()
    },
    "images only": (
        {"regularizers": (CR(),), "shape": (5,)},
        ValueError,
        r"takes images \(m, C, H, W\); got .*\(4, 5\)",
    ),
    "g1 of pairs": (
        {"loss": "rpgan", "config": DATConfig(seed="eq10")},
        ValueError,
        r'rpgan compares pairs and has no g1 and g2, which seed="eq10" attacks',
    ),
    "a pair loss with a mean": ({"loss": OfPairs()}, ValueError, r"OfPairs.pair must give one value a logit"),
    "parts that need one sigma": (
        {"regularizers": (AR(),), "config": DATConfig(power_iterations="per_forward"), "microbatch": 2},
        ValueError,
        r"microbatch with the regularizer ar",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    arguments, error, message = REFUSED[case]
    arguments = dict(arguments)
    torch.manual_seed(0)
    shape = arguments.pop("shape", None)
    D: nn.Module = Wrapped() if shape is None else nn.Linear(5, 1).double()
    xr, xf, _ = batch("conv", m=4)
    if shape is not None:
        xr, xf = torch.rand(2, 4, *shape, dtype=torch.float64).unbind()
    before = copy.deepcopy(D.state_dict())
    state = torch.get_rng_state()
    with pytest.raises(error, match=message):
        fastdat.dat_step(D, xr, xf, compile=False, **arguments)
    torch.testing.assert_close(D.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in D.parameters())
    assert not any(module._forward_hooks for module in D.modules())


def test_one_lecam_twice() -> None:
    xr, xf, _ = batch("conv", m=4)
    lecam = LeCam()
    with pytest.raises(ValueError, match=r"one term with a state twice: make a second one"):
        fastdat.dat_step(make("conv"), xr, xf, regularizers=(lecam, lecam), compile=False)


def test_tensors_on_another_device() -> None:
    xr, xf, _ = batch("conv", m=4)
    for term in (LeCam().to("meta"), R1(torch.zeros((), device="meta"))):
        with pytest.raises(ValueError, match=r"are on meta and the samples on cpu: move them with .to"):
            fastdat.dat_step(make("conv"), xr, xf, regularizers=(term,), compile=False)


def test_a_D_that_lets_no_gradient_through() -> None:
    """Where a regularizer takes the input gradient, D must depend on its input, even without an attack."""

    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.D = make("conv")

        def forward(self, x: Tensor) -> Tensor:
            return self.D(x.detach())

    xr, xf, _ = batch("conv", m=4)
    fastdat.d_step(Detached(), xr, xf, compile=False).backward()
    for term in (R1(), GP(), AR()):
        with pytest.raises(ValueError, match="input"):
            fastdat.d_step(Detached(), xr, xf, regularizers=(term,), compile=False)
