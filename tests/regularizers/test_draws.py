"""The random numbers of the terms: one row a sample, in fp32, from the generator that is given."""

from __future__ import annotations

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
    RFM,
    SAN,
    ApproxR1,
    ApproxR2,
    DigGAN,
    GradientPenalty,
    LeCam,
    MaxGP,
    Pair,
    Term,
    ZeroGP,
)
from tests.regularizers.test_term_values import Flip

IMAGES = Pair(*torch.rand(2, 5, 3, 8, 6, dtype=torch.float64).unbind())
IMAGE = (5, 3, 8, 6)

SHAPES: list[tuple[Term, dict[str, tuple[int, ...]]]] = [
    (GP(), {"a": (5,)}),
    (LP(), {"a": (5,)}),
    (ZeroGP("between"), {"a": (5,)}),
    (GradientPenalty("around", "zero"), {"a": (5,), "u": IMAGE}),
    (DRAGAN(), {"a": (5,), "u": IMAGE}),
    (ALP(), {"u_real": IMAGE, "e_real": (5,), "u_fake": IMAGE, "e_fake": (5,)}),
    (ApproxR1(), {"noise": IMAGE}),
    (ApproxR2(), {"noise": IMAGE}),
    (CR(), {"real": (5, 7)}),
    (CR(augment=Flip()), {"real": (5, 2)}),
    (BCR(augment=Flip(3)), {"real": (5, 3), "fake": (5, 3)}),
]


@pytest.mark.parametrize(("term", "shapes"), SHAPES, ids=lambda value: getattr(value, "name", ""))
def test_shapes_precision_and_generator(term: Term, shapes: dict[str, tuple[int, ...]]) -> None:
    def drawn(seed: int) -> dict[str, Tensor]:
        return term.draws(IMAGES, torch.Generator().manual_seed(seed))

    one, same, other = drawn(3), drawn(3), drawn(4)
    assert {name: tuple(t.shape) for name, t in one.items()} == shapes
    for name, tensor in one.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, same[name])
        assert not torch.equal(tensor, other[name])
        assert len(tensor.flatten().unique()) > 0.99 * tensor.numel(), "each sample has numbers of its own"


@pytest.mark.parametrize(("term", "_shapes"), SHAPES, ids=lambda value: getattr(value, "name", ""))
def test_without_a_generator_the_numbers_are_torchs_own(term: Term, _shapes: object) -> None:
    torch.manual_seed(8)
    one = term.draws(IMAGES, None)
    torch.manual_seed(8)
    assert all(torch.equal(tensor, one[name]) for name, tensor in term.draws(IMAGES, None).items())


@pytest.mark.parametrize(
    "term",
    [R1(), ZeroGP("real"), ZeroGP("both"), AR(), RFM("conv2"), LeCam(), DigGAN(), MaxGP(), SAN()],
    ids=lambda term: term.name,
)
def test_other_terms_draw_nothing(term: Term) -> None:
    before = torch.get_rng_state()
    assert term.draws(IMAGES, None) == {}
    assert torch.equal(torch.get_rng_state(), before)


def test_ranges() -> None:
    many = Pair(*torch.zeros(2, 4000, 2).unbind())
    of_alp = ALP(lengths=(0.5, 3.0)).draws(many, None)
    for name, low, high in (
        ("u_real", -0.5, 0.5),
        ("u_fake", -0.5, 0.5),
        ("e_real", 0.5, 3),
        ("e_fake", 0.5, 3),
    ):
        values = of_alp[name]
        assert low <= values.min() < low + 0.01 < high - 0.01 < values.max() <= high
    of_dragan = DRAGAN().draws(many, None)
    assert all(0 <= t.min() < 0.01 < 0.99 < t.max() < 1 for t in of_dragan.values())
    noise = ApproxR1().draws(many, None)["noise"]
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05


def test_a_policy_takes_images_only() -> None:
    flat = Pair(torch.zeros(5, 2), torch.zeros(5, 2))
    with pytest.raises(
        ValueError,
        match=r"CR\(augment='diffaug'\) takes images \(m, C, H, W\); got samples of shape \(5, 2\)",
    ):
        CR().draws(flat, None)
    assert CR(augment=Flip()).draws(flat, None)["real"].shape == (5, 2)
