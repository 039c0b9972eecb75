"""Regularizers on a CUDA device: the numbers of the CPU, in every way of compiling, without waiting for the device."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

import fastdat
from fastdat import DATConfig
from fastdat.regularizers import ASGAN, GP, R1, LeCam, RobGAN
from fastdat.regularizers.term import Pair, Term
from tests.compare import gradients, relative_error
from tests.discriminators import batch, make
from tests.engine.term_cases import Drawn, drawn

pytestmark = pytest.mark.gpu

ATTACKS = {
    "dat": DATConfig(eps=30.0, delta_clip=0.3),
    "second-order": DATConfig(eps=30.0, delta_clip=0.3, second_order=True),
    "asgan": ASGAN(eps=0.2),
    "robgan": RobGAN(eps=0.3, step=0.2, steps=2),
}
GROUPS = (("r1", "gp", "ar"), ("rfm", "alp", "maxgp"), ("lecam", "dragan", "diggan", "bcr"))


def on_cuda(term: Drawn) -> Drawn:
    """The same regularizer with the same random numbers on the device."""
    inner = term.term.cuda() if isinstance(term.term, LeCam) else term.term
    return Drawn(inner, {name: numbers.cuda() for name, numbers in term.drawn.items()})


CASES: list[tuple[str, tuple[str, ...], bool | str]] = [
    ("dat", GROUPS[0], True),
    ("second-order", GROUPS[2], True),
    ("robgan", GROUPS[1], True),
    ("asgan", GROUPS[2], False),
    ("dat", GROUPS[2], "reduce-overhead"),
    ("second-order", GROUPS[0], "reduce-overhead"),
]


@pytest.mark.parametrize(("attack", "names", "compile"), CASES)
def test_as_on_the_cpu(attack: str, names: tuple[str, ...], compile: bool | str) -> None:
    """Three steps in fp32 on the device against eager fp64 ones on the CPU, LeCam's anchors among them."""
    torch.manual_seed(0)
    kind = "batchnorm" if attack == "robgan" else "spectral"
    D, (xr, xf, _) = make(kind), batch(kind)
    exact = [drawn(name, Pair(xr, xf)) for name in names]
    ours = copy.deepcopy(D).float().cuda()
    terms = [on_cuda(copy.deepcopy(term)) for term in exact]
    for _ in range(3):
        D.zero_grad()
        ours.zero_grad()
        fastdat.dat_step(D, xr, xf, ATTACKS[attack], "gan", regularizers=exact, compile=False).backward()
        fastdat.dat_step(
            ours,
            xr.float().cuda(),
            xf.float().cuda(),
            ATTACKS[attack],
            "gan",
            regularizers=terms,
            compile=compile,
        ).backward()
        assert relative_error(gradients(ours).cpu(), gradients(D)) <= 2e-4
    for term, other in zip(terms, exact, strict=True):
        for name, tensor in term.state().items():
            torch.testing.assert_close(tensor.cpu(), other.state()[name], rtol=1e-4, atol=1e-5)


def test_a_repeated_step_does_not_synchronise() -> None:
    D = make("spectral", torch.float32).cuda()
    xr, xf = (x.cuda() for x in batch("spectral", dtype=torch.float32)[:2])
    gamma = torch.tensor(1.0, device="cuda")
    terms: tuple[Term, ...] = (R1(gamma), GP(2.0), LeCam(1.0, start=0).cuda())
    generator = torch.Generator("cuda").manual_seed(0)
    losses: list[Tensor] = []
    for step in range(4):
        torch.cuda.set_sync_debug_mode("error" if step > 1 else "default")
        try:
            gamma.mul_(0.9)
            loss = fastdat.dat_step(D, xr, xf, regularizers=terms, generator=generator)
            loss.backward()
            losses.append(loss.detach())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(losses).isfinite().all()


def test_a_generator_of_another_device() -> None:
    D = make("spectral", torch.float32).cuda()
    xr, xf = (x.cuda() for x in batch("spectral", dtype=torch.float32)[:2])
    with pytest.raises(ValueError, match=r"generator is on cpu and the samples on cuda"):
        fastdat.dat_step(D, xr, xf, regularizers=(GP(),), generator=torch.Generator(), compile=False)
