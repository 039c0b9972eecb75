"""What a term refuses when it is made, and what its fields mean."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

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
    GradientPenalty,
    LeCam,
    MaxGP,
    Needs,
    Term,
    ZeroGP,
)

ALL: dict[str, Callable[..., Term]] = {
    "GP": GP,
    "LP": LP,
    "R1": R1,
    "R2": R2,
    "ZeroGP": ZeroGP,
    "DRAGAN": DRAGAN,
    "GradientPenalty": lambda **kw: GradientPenalty(at="fake", norm="zero", **kw),
    "AR": AR,
    "RFM": lambda **kw: RFM("conv2", **kw),
    "ALP": ALP,
    "ApproxR1": ApproxR1,
    "ApproxR2": ApproxR2,
    "CR": CR,
    "BCR": BCR,
    "LeCam": LeCam,
    "DigGAN": DigGAN,
    "MaxGP": MaxGP,
    "SAN": SAN,
}


@pytest.mark.parametrize("missing", ["name", "weight", "needs", "value"])
def test_a_term_of_ones_own_says_all_that_a_step_asks(missing: str) -> None:
    parts: dict[str, Any] = {"name": "own", "weight": 2.0, "every": 1, "needs": Needs(), "value": double}
    type("Whole", (Term,), parts)()
    del parts[missing]
    with pytest.raises(TypeError, match=rf"abstract.* '?{missing}'?$"):
        type("Part", (Term,), parts)()


def double(x: Tensor, draws: Tensor) -> Tensor:
    return 2 * x


class Unhashable:
    draws_per_sample = 1
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, x: Tensor, draws: Tensor) -> Tensor:
        return x


BAD: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: GP(target=-1.0), ValueError, "GP.target must be a finite number >= 0; got -1.0"),
    (lambda: LP(target="1"), TypeError, "LP.target must be a finite number >= 0; got '1'"),  # type: ignore[arg-type]
    (
        lambda: ZeroGP(at="around"),  # type: ignore[arg-type]
        ValueError,
        "ZeroGP.at must be one of real, fake, both, between; got 'around'",
    ),
    (
        lambda: GradientPenalty("left", "zero"),  # type: ignore[arg-type]
        ValueError,
        "GradientPenalty.at must be one of between, real, fake, both, around; got 'left'",
    ),
    (
        lambda: GradientPenalty("real", "l1"),  # type: ignore[arg-type]
        ValueError,
        "GradientPenalty.norm must be one of two-sided, one-sided, zero; got 'l1'",
    ),
    (
        lambda: AR("features"),  # type: ignore[arg-type]
        ValueError,
        "AR.of must be one of logits, output; got 'features'",
    ),
    (lambda: AR(eps=0.0), ValueError, "AR.eps must be a finite number > 0; got 0.0"),
    (
        lambda: AR(batch=0),
        ValueError,
        "AR.batch must be an integer >= 1 or None (null in YAML and --set), where None means no scaling",
    ),
    (lambda: RFM(""), ValueError, "RFM.path must name a submodule of D, as in D.named_modules(); got ''"),
    (lambda: RFM(3), TypeError, "RFM.path must be text; got 3"),  # type: ignore[arg-type]
    (lambda: ALP(xi=0.0), ValueError, "ALP.xi must be a finite number > 0; got 0.0"),
    (
        lambda: ALP(lengths=(2.0, 1.0)),
        ValueError,
        "ALP.lengths must be [a, b], each a finite number > 0, with a < b",
    ),
    (lambda: ALP(iterations=-1), ValueError, "ALP.iterations must be an integer >= 0; got -1"),
    (lambda: ApproxR1(sigma=0.0), ValueError, "ApproxR1.sigma must be a finite number > 0; got 0.0"),
    (
        lambda: BCR(fake_ratio=float("nan")),
        ValueError,
        "BCR.fake_ratio must be a finite number >= 0; got nan",
    ),
    (lambda: CR(augment="colour"), ValueError, 'CR.augment must be a policy, "diffaug" or some of'),
    (lambda: CR(augment="none"), ValueError, "got 'none', under which the term is always 0"),
    (lambda: CR(augment=3), TypeError, "a function (x, draws) -> x that can be hashed"),  # type: ignore[arg-type]
    (lambda: CR(augment=double), TypeError, "with draws_per_sample None"),  # type: ignore[arg-type]
    (lambda: BCR(augment=Unhashable()), TypeError, "cannot be hashed"),
    (
        lambda: LeCam(decay=1.0),
        ValueError,
        "LeCam.decay must be a finite number >= 0 and < 1; got 1.0",
    ),
    (lambda: LeCam(start=-1), ValueError, "LeCam.start must be an integer >= 0; got -1"),
]


@pytest.mark.parametrize(("make", "kind", "message"), BAD, ids=[message for *_, message in BAD])
def test_refuses_a_bad_value_and_says_which(
    make: Callable[[], object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        make()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (-1.0, ValueError, "a number >= 0, or a 0-dimensional floating-point tensor; got -1.0"),
        (float("inf"), ValueError, "; got inf"),
        (True, TypeError, "; got True"),
        ("1", TypeError, "; got '1'"),
        (torch.ones(1), ValueError, "of shape (1,)"),
        (torch.tensor(1), ValueError, "got torch.int64 of shape ()"),
        (torch.tensor(1.0, requires_grad=True), ValueError, "with requires_grad"),
    ],
    ids=str,
)
def test_every_weight_is_checked(name: str, value: Any, kind: type[Exception], message: str) -> None:
    field = ALL[name]().strength
    with pytest.raises(kind, match=f"{name}.{field} must.*" + re.escape(message)):
        ALL[name](**{field: value})


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("every", [0, 1.5, True])
def test_every_turn_is_checked(name: str, every: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}.every must be an integer >= 1; got {every}"):
        ALL[name](every=every)


@pytest.mark.parametrize("name", ALL)
def test_a_weight_may_be_a_tensor_that_changes_in_place(name: str) -> None:
    moving = torch.tensor(2.0)
    term = ALL[name](**{ALL[name]().strength: moving})
    before = float(term.weight)
    moving.fill_(3.0)
    assert (before, float(term.weight)) == ((1.0, 1.5) if name in ("R1", "R2") else (2.0, 3.0))
    hash(term)


@pytest.mark.parametrize("name", [name for name in ALL if name != "LeCam"])
def test_equal_settings_are_equal_terms(name: str) -> None:
    field = ALL[name]().strength
    one, same, other = ALL[name](**{field: 3}), ALL[name](**{field: 3.0}), ALL[name](**{field: 4.0})
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert isinstance(getattr(one, field), float)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(one, field, 5.0)


def test_equal_fields_of_different_terms_are_not_equal() -> None:
    assert len({R1(), R2(), GP(), LP(), DRAGAN(), ApproxR1(), ApproxR2(), MaxGP(), SAN()}) == 9


def test_the_defaults_are_those_of_the_papers() -> None:
    assert [repr(ALL[name]()) for name in ("GP", "LP", "DRAGAN")] == [
        f"{name}(weight=10.0, every=1, target=1.0)" for name in ("GP", "LP", "DRAGAN")
    ]
    assert repr(R1()) == "R1(gamma=10.0, every=1)"
    assert repr(ZeroGP()) == "ZeroGP(at='real', weight=10.0, every=1)"
    assert repr(AR()) == "AR(of='logits', weight=10.0, eps=0.0001, batch=64, every=1)"
    assert repr(RFM("a.b")) == "RFM(path='a.b', weight=10.0, eps=0.0001, batch=64, every=1)"
    assert repr(ALP()) == "ALP(weight=10.0, every=1, target=1.0, xi=10.0, lengths=(0.1, 10.0), iterations=1)"
    assert repr(ApproxR1()) == "ApproxR1(weight=100.0, sigma=0.01, every=1)"
    assert repr(BCR()) == "BCR(weight=10.0, fake_ratio=1.0, every=1, augment='diffaug')"
    assert repr(LeCam()) == "LeCam(weight=0.3, decay=0.99, start=1000, every=1)"
    assert (DigGAN().weight, MaxGP().weight, SAN().weight) == (1000.0, 1.0, 1.0)


def test_a_list_serves_as_a_tuple() -> None:
    assert ALP(lengths=[0.5, 2]) == ALP(lengths=(0.5, 2.0))  # type: ignore[arg-type]
