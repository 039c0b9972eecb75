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
    weight: Any = 1.0
    every: Any = 1
    more: list[int] | None = field(default=None)
    couples: bool = False  # type: ignore[misc]

    name = "own"

    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        return self.function(points)


class Learning(nn.Module, Own):
    """A term with a parameter."""

    name = "learning"

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.zeros(2))

    __hash__ = nn.Module.__hash__


class Drawing(Own):
    """Random numbers that belong to no sample."""

    def draws(self, x: Any, generator: Any) -> dict[str, Tensor]:
        return {"u": torch.rand(3, generator=torch.Generator())}


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
    "a negative step": ({"regularizers": (R1(),), "step": -1}, ValueError, r"an int >= 0, got -1"),
    "a step that is text, alone": ({"step": "a"}, TypeError, r"an int >= 0, got str"),
    "no turn": ({"regularizers": (Own(every=0),)}, ValueError, r"Own.every must be an integer >= 1, got 0"),
    "half a turn": ({"regularizers": (Own(every=2.5),)}, ValueError, r"Own.every must be .*, got 2.5"),
    "a negative weight": (
        {"regularizers": (Own(weight=-3.0),)},
        ValueError,
        r"Own.weight must be a number >= 0",
    ),
    "a weight that is text": (
        {"regularizers": (Own(weight="a"),)},
        TypeError,
        r"Own.weight must be a number >= 0",
    ),
    "parameters": (
        {"regularizers": (Learning(),)},
        ValueError,
        r"learning has parameters, which would get no gradient",
    ),
    "a value for each sample": (
        {"regularizers": (Own(Needs(logits=True), lambda points: points.logits().real),)},
        ValueError,
        r"own must give a scalar tensor, got shape \(4,\): take its mean",
    ),
    "draws without rows": (
        {"regularizers": (Drawing(),)},
        ValueError,
        r"draws 'u' of shape \(3,\): .*\(4, ...\)",
    ),
    "further outputs of all parts": (
        {"regularizers": (Own(Needs(extras=True), couples=True),), "microbatch": 2},
        ValueError,
        r"joins the samples of the whole batch, cannot take\s+D's further outputs",
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


def test_terms_that_compare_close_samples_are_refused_in_half_precision() -> None:
    xr, xf, _ = batch("conv", m=4, dtype=torch.float32)
    D = make("conv", torch.float32)
    for term in (AR(), RFM("conv2")):
        with (
            torch.autocast("cpu", torch.bfloat16),
            pytest.raises(TypeError, match="closer than bf16 can tell apart"),
        ):
            fastdat.dat_step(D, xr, xf, regularizers=(term,), compile=False)
    with pytest.raises(TypeError, match="closer than bf16 can tell apart"):
        fastdat.dat_step(D.bfloat16(), xr.bfloat16(), xf.bfloat16(), regularizers=(AR(),), compile=False)


def test_dat_grads_refuses_the_same() -> None:
    xr, xf, _ = batch("conv", m=4)
    D = make("conv")
    params = dict(D.named_parameters())
    for arguments, error, message in (
        ({"config": DATConfig.paper(), "loss": "rpgan"}, ValueError, "compares pairs and has no g1 and g2"),
        ({"regularizers": R1()}, TypeError, r"write regularizers=\(R1"),
        ({"regularizers": (R1,)}, TypeError, "the class R1 itself"),
        ({"regularizers": (GP(),), "draws": ({"a": torch.rand(3)},)}, ValueError, r"'a' of shape \(3,\)"),
    ):
        with pytest.raises(error, match=message):
            fastdat.functional.dat_grads(D, params, xr, xf, **arguments)


@pytest.mark.usefixtures("only_traced")
def test_a_function_of_ones_own_has_no_second_derivative_in_a_compiled_step() -> None:
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
            (x,) = ctx.saved_tensors
            return 3 * x**2 * grad

    class Cubed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.D = make("conv")

        def forward(self, x: Tensor) -> Tensor:
            return Cube.apply(self.D(x))

    xr, xf, _ = batch("conv", m=4)
    own = Own(Needs(gradient=("real",)), lambda points: points.gradient("real").square().mean())
    for term in (R1(), GP(), own):
        with pytest.raises(NotImplementedError, match="penalty on D's input gradient"):
            fastdat.dat_step(Cubed(), xr, xf, regularizers=(term,))
