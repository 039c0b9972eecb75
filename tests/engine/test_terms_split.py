"""Regularizers of a batch that is split, into micro-batches or over ranks: each gives what the whole batch gives."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import fastdat
from fastdat import DATConfig
from fastdat.regularizers import ASGAN, RobGAN
from fastdat.regularizers.plain_state import power_iteration
from fastdat.regularizers.term import Needs, Pair, Points, Term
from tests.compare import gradients, relative_error
from tests.discriminators import batch, make
from tests.engine.term_cases import TERMS, Direction, drawn
from tests.engine.test_distributed import run

SAMPLES = 8
ATTACKS = {
    "none": DATConfig(real=False, fake=False),
    "dat": DATConfig(eps=30.0),
    "second-order": DATConfig(eps=20.0, eps_batch=None, steps=2, second_order=True),
    "datt": DATConfig(eps=30.0, clean_weight=0.7),
    "asgan": ASGAN(eps=0.2),
    "robgan": RobGAN(eps=0.3, step=0.2, steps=2),
}
ALONE = [name for name in TERMS if name != "san"]


def D_and_batch(name: str) -> tuple[nn.Module, Pair]:
    """A spectrally normalised D, and samples in the order of their logits: the parts are unlike each other."""
    torch.manual_seed(0)
    D, (xr, xf, _) = make("spectral"), batch("spectral", m=SAMPLES)
    xr, xf = (x[D.eval()(x).flatten().argsort(descending=down)] for x, down in ((xr, False), (xf, True)))
    D.train()
    return (Direction(D) if name == "san" else D), Pair(xr, xf)


def whole(
    D: nn.Module, x: Pair, name: str, **settings: object
) -> tuple[Tensor, Tensor, fastdat.DATInfo, Term]:
    """Loss, gradient, measurements, and the regularizer after the step."""
    D, term = copy.deepcopy(D), drawn(name, x)
    loss, info = fastdat.dat_step(  # type: ignore[call-overload]
        D, *x, loss="gan", regularizers=(term,), with_info=True, compile=False, **settings
    )
    loss.backward()
    return loss.detach(), gradients(D), info, term


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", TERMS)
def test_micro_batches(name: str, attack: str) -> None:
    D, x = D_and_batch(name)
    loss, exact, exact_info, exact_term = whole(D, x, name, config=ATTACKS[attack])
    for size in (2, 3):  # 3: the last part is smaller
        found, grads, info, term = whole(D, x, name, config=ATTACKS[attack], microbatch=size)
        torch.testing.assert_close(found, loss, rtol=1e-11, atol=0)
        assert relative_error(grads, exact) <= 1e-11
        torch.testing.assert_close(info.terms, exact_info.terms, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(term.state(), exact_term.state())


def test_each_regularizer_matters_in_these_tests() -> None:
    """Without it the gradient is another one, by far more than the tolerance."""
    for name in ALONE:
        D, x = D_and_batch(name)
        with_it = whole(D, x, name, config=ATTACKS["dat"])[1]
        without = copy.deepcopy(D)
        fastdat.dat_step(without, *x, ATTACKS["dat"], "gan", compile=False).backward()
        assert relative_error(gradients(without), with_it) > 1e-3, name


@pytest.mark.parametrize("attack", ATTACKS)
def test_several_in_parts(attack: str) -> None:
    D, x = D_and_batch("r1")
    for names in (("ar", "maxgp"), ("maxgp", "lecam", "ar"), ("rfm", "r1", "diggan")):
        found = []
        for size in (None, 3):
            own, terms = copy.deepcopy(D), tuple(drawn(name, x) for name in names)
            loss = fastdat.dat_step(
                own, *x, ATTACKS[attack], "gan", regularizers=terms, microbatch=size, compile=False
            )
            loss.backward()
            found.append(gradients(own))
        assert relative_error(*found) <= 1e-11, names


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_greatest_of_equals(size: int) -> None:
    """A linear D has the same gradient everywhere: all samples are the greatest, in however many parts they come."""
    torch.manual_seed(0)
    D = nn.Sequential(nn.Flatten(), nn.Linear(192, 1)).double()
    xr, xf, _ = batch("conv", m=6)
    found = []
    for microbatch in (None, size):
        own = copy.deepcopy(D)
        fastdat.d_step(
            own, xr, xf, "wgan", regularizers=(TERMS["maxgp"](),), microbatch=microbatch, compile=False
        ).backward()
        found.append(gradients(own))
    assert relative_error(*found) <= 1e-12


def test_micro_batches_with_sigma_of_each_call() -> None:
    D, x = D_and_batch("r1")
    config = DATConfig(power_iterations="per_forward")
    with pytest.raises(
        ValueError, match=r"microbatch with the regularizer ar, .* use power_iterations=\"once\""
    ):
        whole(D, x, "ar", config=config, microbatch=2)
    whole(D, x, "r1", config=config, microbatch=2)


# --- ranks ---------------------------------------------------------------------------------------------------------


def _ranks_equal_one(rank: int, ranks: int) -> None:
    rows = slice(rank * SAMPLES // ranks, (rank + 1) * SAMPLES // ranks)
    for name in TERMS:
        D, x = D_and_batch(name)
        for attack in ("none", "dat", "second-order", "asgan"):
            loss, exact, exact_info, exact_term = whole(D, x, name, config=ATTACKS[attack])
            for size in (None, 2) if ranks == 2 else (None,):
                shared = DistributedDataParallel(copy.deepcopy(D))
                term = drawn(name, x, rows)
                found, info = fastdat.dat_step(
                    shared, x.real[rows], x.fake[rows], ATTACKS[attack], "gan", regularizers=(term,), microbatch=size,
                    compile=False, with_info=True,
                )  # fmt: skip
                found.backward()
                assert relative_error(gradients(shared.module), exact) <= 1e-9, (name, attack, size)
                total = found.detach().clone()
                dist.all_reduce(total)
                torch.testing.assert_close(total / ranks, loss)
                torch.testing.assert_close(term.state(), exact_term.state())
                if name in ("ar", "ar-output", "rfm", "maxgp"):  # a value of the whole batch on each rank
                    torch.testing.assert_close(info.terms[term.name], exact_info.terms[term.name])


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks(ranks: int, tmp_path: Path) -> None:
    run(ranks, tmp_path, _ranks_equal_one)


def _compiled_ranks(rank: int, ranks: int) -> None:
    rows = slice(rank * SAMPLES // ranks, (rank + 1) * SAMPLES // ranks)
    D, x = D_and_batch("ar")
    _, exact, _, _ = whole(D, x, "ar", config=ATTACKS["dat"])
    shared = DistributedDataParallel(copy.deepcopy(D))
    loss = fastdat.dat_step(
        shared, x.real[rows], x.fake[rows], ATTACKS["dat"], "gan", regularizers=(drawn("ar", x, rows),)
    )
    loss.backward()
    assert relative_error(gradients(shared.module), exact) <= 1e-9


@pytest.mark.slow
def test_compiled_ranks(tmp_path: Path) -> None:
    run(2, tmp_path, _compiled_ranks)


# --- a user's own --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread(Term):
    """The variance of the real logits over the whole batch."""

    weight: float = 1.0
    every: int = 1
    couples: bool = True  # type: ignore[misc]

    name = "spread"
    needs = Needs(logits=True)

    def value(self, points: Points, given: Mapping[str, Tensor]) -> Tensor:
        centre = points.mean(points.logits().real)
        return (points.logits().real - centre).square().mean()


def test_a_term_of_ones_own() -> None:
    D, x = D_and_batch("r1")

    def gradient(microbatch: int | None, term: Term) -> Tensor:
        own = copy.deepcopy(D)
        fastdat.dat_step(own, *x, regularizers=(term,), microbatch=microbatch, compile=False).backward()
        return gradients(own)

    exact = gradient(None, Spread(3.0))
    assert relative_error(gradient(3, Spread(3.0)), exact) <= 1e-12
    plain = copy.deepcopy(D)
    (fastdat.dat_step(plain, *x, compile=False) + 3 * plain_variance(plain, x.real)).backward()
    assert relative_error(exact, gradients(plain)) <= 1e-12
    with pytest.raises(TypeError, match=r"spread joins the samples of a batch .* set couples = True"):
        gradient(None, Spread(3.0, couples=False))
    with pytest.raises(NotImplementedError, match="Spread is none of them"):
        fastdat.reference.dat_step(D, *x, regularizers=(Spread(),))


def plain_variance(D: nn.Module, x: Tensor) -> Tensor:
    with power_iteration(D, on=False):
        return D(x).var(correction=0)
