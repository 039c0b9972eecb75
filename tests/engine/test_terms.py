"""Regularizers in an eager step: each equals its plain formula, for all kinds of D and attacks, and they add up."""

from __future__ import annotations

import copy
from itertools import combinations, product

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig
from fastdat.regularizers import ASGAN, GP, R1, R2, RFM, LeCam, RobGAN
from fastdat.regularizers.term import Pair, Term
from tests.compare import gradients, relative_error
from tests.discriminators import batch, make
from tests.engine.term_cases import TERMS, Direction, Drawn, drawn
from tests.slow_cases import slow_except

ATTACKS = {
    "none": DATConfig(real=False, fake=False),
    "none-per-forward": DATConfig(real=False, fake=False, power_iterations="per_forward"),
    "dat": DATConfig(eps=30.0),
    "second-order": DATConfig(eps=30.0, second_order=True),
    "datt-two-steps": DATConfig(eps=20.0, clean_weight=0.7, steps=2),
    "per-forward": DATConfig(eps=30.0, power_iterations="per_forward"),
    "eq10": DATConfig(eps=30.0, seed="eq10", reduction="sample"),
    "fakes-second-order": DATConfig(eps=30.0, real=False, second_order=True),
    "asgan": ASGAN(eps=0.2),
    "robgan": RobGAN(eps=0.3, step=0.2, steps=2),
}
SOME = ("none", "dat", "second-order", "robgan")
CASES = [
    *(("conv", attack) for attack in ATTACKS if "per-forward" not in attack),
    *((kind, attack) for kind in ("batchnorm", "conditional") for attack in SOME),
    *(("spectral", attack) for attack in (*SOME, "none-per-forward", "per-forward")),
    ("batchnorm", "eq10"),  # the attack's gradient is not that of the sum of the logits
    ("spectral-hook", "per-forward"),
    ("two-heads", "asgan"),
]


def D_for(kind: str, names: tuple[str, ...]) -> nn.Module:
    D = make(kind)
    return Direction(D) if "san" in names else D


def stepped(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    regularizers: tuple[Term, ...],
    *,
    reference: bool = False,
    **arguments: object,
) -> tuple[Tensor, Tensor, nn.Module, fastdat.DATInfo]:
    """Loss, gradient (P,), D after the step, and its measurements; D itself stays as it is."""
    D = copy.deepcopy(D)
    function = fastdat.reference.dat_step if reference else fastdat.dat_step
    if not reference:
        arguments.setdefault("compile", False)
    loss, info = function(D, xr, xf, regularizers=regularizers, with_info=True, **arguments)  # type: ignore[call-overload]
    loss.backward()
    return loss.detach(), gradients(D), D, info


def compare(
    D: nn.Module,
    xr: Tensor,
    xf: Tensor,
    names: tuple[str, ...],
    tolerance: float = 1e-11,
    **arguments: object,
) -> None:
    """Loss, gradients, buffers and measurements of the engine and of the reference."""
    own, plain = ([TERMS[name]() for name in names] for _ in range(2))
    loss, grads, D_own, info = stepped(
        D, xr, xf, tuple(own), generator=torch.Generator().manual_seed(1), **arguments
    )
    arguments.pop("compile", None)
    expected, exact, D_plain, expected_info = stepped(
        D, xr, xf, tuple(plain), reference=True, generator=torch.Generator().manual_seed(1), **arguments
    )
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=tolerance)
    assert relative_error(grads, exact) <= tolerance
    torch.testing.assert_close(
        dict(D_own.named_buffers()), dict(D_plain.named_buffers()), rtol=1e-9, atol=1e-12
    )
    assert list(info.terms) == list(expected_info.terms)
    torch.testing.assert_close(info.terms, expected_info.terms, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(info.xr_adv, expected_info.xr_adv, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(info.xf_adv, expected_info.xf_adv, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(info.clean_logits_real, expected_info.clean_logits_real, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(info.clean_logits_fake, expected_info.clean_logits_fake, rtol=1e-9, atol=1e-12)
    for mine, theirs in zip(own, plain, strict=True):
        torch.testing.assert_close(mine.state(), theirs.state(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("kind", "attack"), CASES)
def test_each_regularizer_equals_its_plain_formula(kind: str, attack: str) -> None:
    torch.manual_seed(0)
    xr, xf, args = batch(kind, m=5)
    for name in TERMS:
        compare(D_for(kind, (name,)), xr, xf, (name,), config=ATTACKS[attack], loss="gan", **args)


@pytest.mark.parametrize("loss", ["hinge", "lsgan", "wgan", "rpgan", "lsgan-sigmoid", "wgan-sigmoid"])
def test_with_every_loss(loss: str) -> None:
    torch.manual_seed(0)
    xr, xf, _ = batch("spectral", m=5)
    for attack in ("none", "dat", "second-order", "asgan", "robgan"):
        compare(make("spectral"), xr, xf, ("ar", "r1", "alp"), config=ATTACKS[attack], loss=loss)


@pytest.mark.parametrize("attack", ["none-per-forward", "per-forward"])
def test_spectral_norm_advances_call_by_call_in_the_order_of_the_regularizers(attack: str) -> None:
    torch.manual_seed(0)
    xr, xf, _ = batch("spectral", m=5)
    for names in (("gp", "ar1", "bcr"), ("bcr", "gp", "r2"), ("alp", "0gp-between", "ar")):
        compare(make("spectral"), xr, xf, names, config=ATTACKS[attack], loss="gan")
    with pytest.raises(AssertionError):  # the order matters, so the comparison above would see it
        torch.testing.assert_close(
            *[
                stepped(
                    make_seeded("spectral"), xr, xf,
                    tuple(drawn(name, Pair(xr, xf)) for name in names), config=ATTACKS[attack], loss="gan",
                )[1]
                for names in (("gp", "bcr"), ("bcr", "gp"))
            ]
        )  # fmt: skip


def make_seeded(kind: str) -> nn.Module:
    torch.manual_seed(7)
    return make(kind)


KINDS, LOSSES = ("conv", "spectral", "batchnorm", "conditional"), ("hinge", "gan", "wgan", "rpgan")


@pytest.mark.parametrize(
    ("kind", "loss"), slow_except([*zip(KINDS, LOSSES, strict=True)], product(KINDS, LOSSES))
)
def test_pairs_add_up(kind: str, loss: str) -> None:
    """What two regularizers add to the gradient is the sum of what each adds, in either order."""
    torch.manual_seed(0)
    names = [name for name in TERMS if name != "san"]
    D = make(kind)
    xr, xf, args = batch(kind, m=5)
    x = Pair(xr, xf)
    for attack in ("none", "dat"):
        settings = {"config": ATTACKS[attack], "loss": loss, **args}
        plain = stepped(D, xr, xf, (), **settings)[1]
        added = {name: stepped(D, xr, xf, (drawn(name, x),), **settings)[1] - plain for name in names}
        for i, (a, b) in enumerate(combinations(names, 2)):
            if i % 4 != (
                hash_of(kind, loss, attack) % 4
            ):  # each combination of D, loss and attack takes a quarter
                continue
            terms = (drawn(a, x), drawn(b, x))
            both = stepped(D, xr, xf, terms, **settings)[1]
            assert relative_error(both, plain + added[a] + added[b]) <= 1e-11, (a, b)
            if i % 3 == 0:
                other = stepped(D, xr, xf, (drawn(b, x), drawn(a, x)), **settings)[1]
                assert relative_error(other, both) <= 1e-11, (a, b)


def hash_of(*words: str) -> int:
    """The same in every process."""
    return sum(map(ord, "".join(words)))


# --- what a step asks for ------------------------------------------------------------------------------------------


def test_turns_and_their_strength() -> None:
    torch.manual_seed(0)
    D = make("conv")
    xr, xf, _ = batch("conv", m=5)
    plain = stepped(D, xr, xf, ())[1]
    every_step = stepped(D, xr, xf, (R1(2.0),))[1] - plain
    lazy = (R1(2.0, every=4), R2(3.0, every=3))
    for step in range(13):
        _, grads, _, info = stepped(D, xr, xf, lazy, step=step)
        expected = plain.clone()
        if step % 4 == 0:
            expected += 4 * every_step
        if step % 3 == 0:
            expected += 3 * (stepped(D, xr, xf, (R2(3.0),))[1] - plain)
        assert relative_error(grads, expected) <= 1e-12
        names = ["r1", "r1.grad_norm"] * (step % 4 == 0) + ["r2", "r2.grad_norm"] * (step % 3 == 0)
        assert list(info.terms) == names
    with pytest.raises(ValueError, match=r"one step of 4: pass the number of the step"):
        stepped(D, xr, xf, lazy)


def test_two_of_one_name() -> None:
    D = make("conv")
    xr, xf, _ = batch("conv", m=5)
    info = stepped(D, xr, xf, (GP(1.0), R1(1.0), GP(2.0)))[3]
    assert list(info.terms) == ["gp", "r1", "r1.grad_norm", "gp-2"]


def test_a_weight_that_is_a_tensor() -> None:
    """Its value now counts, whoever has changed it since the last step."""
    torch.manual_seed(0)
    D = make("conv")
    xr, xf, _ = batch("conv", m=5)
    gamma = torch.tensor(0.0)
    term = R1(gamma)
    for value in (3.0, 0.5):
        gamma.fill_(value)
        ours = stepped(D, xr, xf, (term,))
        expected = stepped(D, xr, xf, (R1(value),))
        assert relative_error(ours[1], expected[1]) <= 1e-7
        torch.testing.assert_close(ours[3].terms["r1"], expected[3].terms["r1"].float(), check_dtype=False)


def test_the_gradient_of_the_samples() -> None:
    """Where xr and xf require one, a regularizer has its share in it, as in the reference."""
    torch.manual_seed(0)
    D = make("spectral")
    xr, xf, _ = (t.requires_grad_() if isinstance(t, Tensor) else t for t in batch("spectral", m=5))
    for attack in ("none", "dat", "second-order", "asgan"):
        found = []
        for reference in (False, True):
            xr.grad = xf.grad = None
            terms = (TERMS["r1"](), TERMS["ar2"](), TERMS["alp"]())
            stepped(
                D, xr, xf, terms, reference=reference, config=ATTACKS[attack],
                generator=torch.Generator().manual_seed(1),
            )  # fmt: skip
            found.append(torch.cat([xr.grad, xf.grad]))
        assert relative_error(*found) <= 1e-11, attack


def test_random_numbers_come_from_the_generator_alone() -> None:
    D = make("conv")
    xr, xf, _ = batch("conv", m=5)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    one = stepped(D, xr, xf, (GP(3.0),), generator=torch.Generator().manual_seed(1))[1]
    assert torch.equal(torch.get_rng_state(), before)
    again = stepped(D, xr, xf, (GP(3.0),), generator=torch.Generator().manual_seed(1))[1]
    assert torch.equal(one, again)
    other = stepped(D, xr, xf, (GP(3.0),))[1]  # torch's own
    assert not torch.equal(one, other)
    assert not torch.equal(torch.get_rng_state(), before)
    stepped(D, xr, xf, (R1(3.0),))
    now = torch.get_rng_state()
    stepped(D, xr, xf, (R1(3.0),))  # needs none
    assert torch.equal(torch.get_rng_state(), now)


def test_under_autocast_the_penalty_is_in_fp32() -> None:
    """D runs in bf16, squares and sums are in fp32: no further from the exact gradient than the plain formulas are."""
    torch.manual_seed(0)
    D = make("conv", torch.float32)
    xr, xf, _ = batch("conv", m=5, dtype=torch.float32)

    def found(reference: bool) -> tuple[Tensor, dict[str, Tensor]]:
        terms = (R1(2.0), GP(3.0))
        generator = torch.Generator().manual_seed(1)
        _, grads, _, info = stepped(D, xr, xf, terms, generator=generator, reference=reference)
        return grads, info.terms

    exact = found(reference=True)[0]
    with torch.autocast("cpu", torch.bfloat16):
        (ours, values), (plain, _) = found(reference=False), found(reference=True)
    assert {value.dtype for value in values.values()} == {torch.float32}
    assert 1e-3 < relative_error(ours, exact) < 1.5 * relative_error(plain, exact) < 0.1


def test_the_precision_of_a_tensor_changes_nothing() -> None:
    D = make("conv", torch.float32)
    xr, xf, _ = batch("conv", m=5, dtype=torch.float32)
    for dtype in (torch.float64, torch.bfloat16):
        loss, _, _, info = stepped(D, xr, xf, (R1(torch.tensor(2.0, dtype=dtype)),))
        assert loss.dtype == info.terms["r1"].dtype == torch.float32


def test_what_nothing_differentiates_is_pulled_once() -> None:
    """Under no_grad, with a frozen D, on one side: no graph is asked twice, and the value stays."""
    torch.manual_seed(0)
    D = make("conv")
    xr, xf, _ = batch("conv", m=5)
    configs = [*ATTACKS.values(), DATConfig(fake=False), DATConfig(real=False)]
    for config in configs:
        for names in (("ar", "r1"), ("ar", "r1", "r2"), ("r2", "ar"), ("maxgp", "ar"), ("diggan",)):
            terms = tuple(TERMS[name]() for name in names)
            expected = stepped(D, xr, xf, terms, config=config)[0]
            with torch.no_grad():
                value = fastdat.dat_step(copy.deepcopy(D), xr, xf, config, regularizers=terms, compile=False)
            torch.testing.assert_close(value, expected)
            frozen = copy.deepcopy(D).requires_grad_(False)
            torch.testing.assert_close(
                fastdat.dat_step(frozen, xr, xf, config, regularizers=terms, compile=False), expected
            )


class InPlace(nn.Module):
    """The activation after a convolution overwrites its output, or does not."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act = nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2, inplace)
        self.head = nn.Linear(4, 1)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize("reference", [False, True])
def test_features_are_those_before_an_activation_in_place(reference: bool) -> None:
    torch.manual_seed(0)
    xr, xf, _ = batch("conv", m=5)
    one, other = (
        stepped(InPlace(inplace), xr, xf, (RFM("conv", eps=0.3),), reference=reference)
        for inplace in (False, True)
    )
    torch.testing.assert_close(one[:2], other[:2])


def test_lecam_keeps_its_anchors_between_steps() -> None:
    torch.manual_seed(0)
    D = make("conv")
    xr, xf, _ = batch("conv", m=5)
    ours, plain = LeCam(2.0, decay=0.7, start=2), LeCam(2.0, decay=0.7, start=2)
    for _ in range(4):
        xr, xf = xr.flip(0) * 0.9, xf * 1.1
        found = [stepped(D, xr, xf, (t,), reference=t is plain) for t in (ours, plain)]
        assert relative_error(found[0][1], found[1][1]) <= 1e-12
        torch.testing.assert_close(ours.state(), plain.state())
    assert ours.steps == 4
    with torch.no_grad():
        fastdat.dat_step(D, xr, xf, regularizers=(ours,), compile=False)
    assert ours.steps == 5


def test_d_step_is_the_step_without_an_attack() -> None:
    torch.manual_seed(0)
    D = make("spectral")
    xr, xf, _ = batch("spectral", m=5)
    one, other = copy.deepcopy(D), copy.deepcopy(D)
    loss, info = fastdat.d_step(
        one, xr, xf, "wgan", regularizers=(GP(3.0),), generator=torch.Generator().manual_seed(1), compile=False,
        bounds=None, with_info=True,
    )  # fmt: skip
    loss.backward()
    expected = fastdat.dat_step(
        other, xr, xf, DATConfig(real=False, fake=False, bounds=None), "wgan", regularizers=(GP(3.0),),
        generator=torch.Generator().manual_seed(1), compile=False,
    )  # fmt: skip
    expected.backward()
    assert torch.equal(loss, expected)
    assert torch.equal(gradients(one), gradients(other))
    assert list(info.terms) == ["gp"]
    fastdat.d_step(one, xr, xf, power_iterations="per_forward", compile=False)
    with pytest.raises(ValueError, match="power_iterations"):
        fastdat.d_step(one, xr, xf, power_iterations="twice", compile=False)  # type: ignore[call-overload]


def test_vmap_over_discriminators() -> None:
    torch.manual_seed(0)
    D = make("mlp")
    nets = [make("mlp") for _ in range(3)]
    xr, xf, _ = batch("mlp", m=5)
    terms = (R1(0.3), GP(0.2, target=0.1))
    draws = [term.draws(Pair(xr, xf), torch.Generator().manual_seed(2)) for term in terms]
    stacked = {
        name: torch.stack([dict(n.named_parameters())[name].detach() for n in nets])
        for name, _ in D.named_parameters()
    }

    def grads(params: dict[str, Tensor]) -> dict[str, Tensor]:
        return fastdat.functional.dat_grads(
            D, params, xr, xf, config=DATConfig(bounds=None), loss="wgan", regularizers=terms, draws=draws
        )[0]

    together = torch.vmap(grads)(stacked)
    for i, net in enumerate(nets):
        own = tuple(Drawn(term, d) for term, d in zip(terms, draws, strict=True))
        expected = stepped(net, xr, xf, own, config=DATConfig(bounds=None), loss="wgan")[1]
        assert relative_error(torch.cat([together[name][i].flatten() for name in stacked]), expected) <= 1e-12
    with pytest.raises(ValueError, match=r"one dict for each of the 2 regularizers, got 1"):
        fastdat.functional.dat_grads(
            D, dict(D.named_parameters()), xr, xf, regularizers=terms, draws=draws[:1]
        )
    with pytest.raises(
        ValueError, match=r"keeps no state and sees no features, which the regularizer lecam needs"
    ):
        fastdat.functional.dat_grads(D, dict(D.named_parameters()), xr, xf, regularizers=(LeCam(),))
