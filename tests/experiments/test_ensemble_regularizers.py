"""An ensemble with regularizers and other attacks: the same as separate runs, and each member's own random numbers."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from torch import nn

import fastdat.reference
from fastdat.config import NO_ATTACK, DATConfig
from fastdat.data.mixture import BALANCED, IMBALANCED
from fastdat.experiments.points.ensemble import (
    REGULARIZERS,
    Attack,
    Ensemble,
    Recipe,
    batches,
    build_nets,
    random_stream,
    regularizer_draws,
)
from fastdat.losses import generator_loss
from fastdat.regularizers import (
    ALP,
    AR,
    ASGAN,
    GP,
    R1,
    RFM,
    ApproxR1,
    ApproxR2,
    DigGAN,
    LeCam,
    RobGAN,
    Term,
    ZeroGP,
)

MIXTURES = (BALANCED, IMBALANCED)
DAT = DATConfig(bounds=None)
#: Mostly without wgan: there the gradient of some biases cancels to rounding, which Adam blows up to 1e-12.
CASES: dict[str, tuple[Attack, str, tuple[Term, ...]]] = {
    "GP, lazy R1": (NO_ATTACK, "wgan", (R1(3.0, every=2), GP(2.0))),
    "DAT + R1 + R2": (DAT, "lsgan", (ZeroGP("both", 0.1),)),
    "second order + aR1 + aR2": (
        DATConfig(bounds=None, second_order=True),
        "gan",
        (ApproxR1(7.0, sigma=0.1), ApproxR2(9.0, sigma=0.2)),
    ),
    "AR, ALP": (DATConfig(bounds=None, fake=False), "gan", (AR(eps=0.1), ALP(xi=1.0, lengths=(0.01, 1.0)))),
    "ASGAN + DigGAN": (ASGAN(eps=0.1, bounds=None), "gan", (DigGAN(5.0),)),
    "RobGAN": (RobGAN(bounds=None), "gan", ()),
    "pairs": (NO_ATTACK, "rpgan", (ZeroGP("real", 0.5),)),
}


def trained_alone(
    attack: Attack, recipe: Recipe, mixture: Any, seed: int, iterations: int
) -> tuple[nn.Module, nn.Module]:
    """G and D of one member, trained by the reference step and one Adam for each net."""
    G, D = (net.double() for net in build_nets(seed, recipe))
    adam_g, adam_d = (torch.optim.Adam(net.parameters(), lr=recipe.lr, betas=recipe.betas) for net in (G, D))
    generator = random_stream(seed, REGULARIZERS)
    stream = batches([mixture], [seed], recipe.batch_size, recipe.nz, torch.empty(0, dtype=torch.float64))
    for step, batch in enumerate(islice(stream, iterations)):
        xr, z_d, z_g = (part.squeeze(0) for part in batch)
        adam_d.zero_grad()
        loss: Any = fastdat.reference.dat_step(
            D,
            xr,
            G(z_d).detach(),
            config=attack,
            loss=recipe.loss,
            regularizers=recipe.regularizers,
            step=step,
            generator=generator,
        )
        loss.backward()
        adam_d.step()
        adam_g.zero_grad()
        generator_loss(recipe.loss, D(G(z_g)), D(xr) if recipe.loss == "rpgan" else None).backward()
        adam_g.step()
    return G, D


@pytest.mark.parametrize("case", CASES)
def test_ensemble_equals_separate_runs(case: str) -> None:
    """Three iterations in float64; a regularizer draws what ``dat_step`` draws from the member's own stream."""
    attack, loss, terms = CASES[case]
    seeds, recipe = (4, 7), Recipe(hidden=16, batch_size=12, loss=loss, regularizers=terms)
    ensemble = Ensemble(MIXTURES, seeds, attack, recipe, dtype=torch.float64)
    ensemble.train(1)
    ensemble.train(2)
    member = 0
    for mixture in MIXTURES:
        for seed in seeds:
            G, D = trained_alone(attack, recipe, mixture, seed, 3)
            for net, stacked in ((D, ensemble.d_params), (G, ensemble.g_params)):
                for name, param in net.named_parameters():
                    torch.testing.assert_close(stacked[name][member], param, rtol=1e-9, atol=1e-12)
            member += 1
    assert member == len(ensemble)


def test_members_do_not_depend_on_each_other() -> None:
    recipe = Recipe(hidden=8, regularizers=(GP(10.0), ApproxR1(100.0)))
    both = Ensemble(MIXTURES, (0, 1, 2), DAT, recipe, dtype=torch.float64)
    alone = Ensemble((IMBALANCED,), (1,), DAT, recipe, dtype=torch.float64)
    for ensemble in (both, alone):
        ensemble.train(2)
    torch.testing.assert_close(both.sample(20)[1, 1], alone.sample(20)[0, 0], rtol=1e-9, atol=1e-12)


def test_same_seeds_give_the_same_run_and_torch_draws_nothing() -> None:
    before = torch.get_rng_state()
    found = []
    for _ in range(2):
        ensemble = Ensemble(MIXTURES, (0, 3), DAT, Recipe(hidden=8, regularizers=(GP(10.0),)))
        ensemble.train(3)
        found.append(ensemble.sample(10))
    assert torch.equal(*found)
    assert torch.equal(torch.get_rng_state(), before)


def test_regularizers_do_not_change_other_random_numbers() -> None:
    """A penalty without weight draws, and changes nothing."""
    runs = [
        Ensemble(MIXTURES, (0, 1), DAT, Recipe(hidden=8, regularizers=terms), dtype=torch.float64)
        for terms in ((), (GP(0.0),))
    ]
    for ensemble in runs:
        ensemble.train(2)
    torch.testing.assert_close(*(ensemble.sample(10) for ensemble in runs), rtol=1e-9, atol=1e-12)


def test_draws_of_seeds_differ_and_mixtures_share_them() -> None:
    stream = regularizer_draws((GP(),), 2, (0, 1), 5, torch.device("cpu"))
    (_, (first,)), (_, (second,)) = next(stream), next(stream)
    (drawn,) = first.values()
    assert drawn.shape == (4, 5)
    assert torch.equal(drawn[0], drawn[2])  # seed 0 in both mixtures
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn, next(iter(second.values())))


@pytest.mark.parametrize(
    ("term", "message"),
    [(LeCam(), "lecam keeps a state"), (RFM("layers.0"), "rfm looks at a layer of D")],
)
def test_what_stacked_members_cannot_have(term: Term, message: str) -> None:
    with pytest.raises(ValueError, match=message + r".*fastdat\.dat_step"):
        Recipe(regularizers=(term,))


@pytest.mark.slow
def test_compiled_equals_eager() -> None:
    recipe = Recipe(hidden=8, batch_size=8, layers=1, loss="rpgan", regularizers=(GP(10.0, every=2),))
    eager, compiled = (Ensemble(MIXTURES, (0, 1), DAT, recipe, compile=c) for c in (False, True))
    for ensemble in (eager, compiled):
        ensemble.train(3)
    torch.testing.assert_close(eager.sample(10), compiled.sample(10), rtol=1e-3, atol=1e-4)
