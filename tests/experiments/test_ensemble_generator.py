"""Stacked GANs with an attack in G's step equal plain GANs trained one by one."""

from __future__ import annotations

from itertools import islice
from typing import Literal

import pytest
import torch

import fastdat.reference
from fastdat.config import DATConfig
from fastdat.data.mixture import BALANCED, IMBALANCED
from fastdat.experiments.points.ensemble import Ensemble, Recipe, batches, build_nets
from fastdat.regularizers import ASGAN

MIXTURES, SEEDS = (BALANCED, IMBALANCED), (4, 7)
OF_D = DATConfig(bounds=None, eps=20.0, reduction="sample")
OF_G = DATConfig(bounds=None, eps=9.0, steps=2, fake=False, real=False)


@pytest.mark.parametrize("own", [None, OF_G], ids=["attack of D", "its own attack"])
@pytest.mark.parametrize("wiring", ["pass", "second_order", "cut"])
@pytest.mark.parametrize("loss", ["gan", "rpgan"])
def test_ensemble_equals_separate_runs(
    loss: str, wiring: Literal["pass", "second_order", "cut"], own: DATConfig | None
) -> None:
    """The separate runs use plain modules, the reference steps and one Adam per net; three iterations in float64."""
    recipe = Recipe(hidden=16, batch_size=12, loss=loss, dat_generator=wiring, generator_attack=own)
    ensemble = Ensemble(MIXTURES, SEEDS, OF_D, recipe, dtype=torch.float64)
    ensemble.train(3)
    like = torch.empty(0, dtype=torch.float64)
    pairs = [(mixture, seed) for mixture in MIXTURES for seed in SEEDS]
    for member, (mixture, seed) in enumerate(pairs):
        G, D = (net.double() for net in build_nets(seed, recipe))
        before = [p.detach().clone() for p in G.parameters()]
        adam_g, adam_d = (
            torch.optim.Adam(net.parameters(), lr=recipe.lr, betas=recipe.betas) for net in (G, D)
        )
        for batch in islice(batches([mixture], [seed], recipe.batch_size, recipe.nz, like), 3):
            xr, z_d, z_g = (part.squeeze(0) for part in batch)
            adam_d.zero_grad()
            fastdat.reference.dat_step(D, xr, G(z_d).detach(), OF_D, loss).backward()
            adam_d.step()
            adam_g.zero_grad()
            fastdat.reference.generator_step(D, G(z_g), xr, own or OF_D, loss, wiring=wiring).backward()
            adam_g.step()
        for net, stacked in ((D, ensemble.d_params), (G, ensemble.g_params)):
            for name, param in net.named_parameters():
                # A gradient that is zero but for its rounding moves Adam by up to 1e-11.
                torch.testing.assert_close(stacked[name][member], param, rtol=1e-9, atol=1e-10)
        assert all(map(torch.equal, before, G.parameters())) == (wiring == "cut")


def test_without_it_the_attack_does_not_reach_g() -> None:
    """Two attacks of D that differ in nothing else than how far they would move G's fakes."""
    recipes = [Recipe(hidden=8, batch_size=4, dat_generator=wiring) for wiring in ("none", "pass")]
    attacks = [DATConfig(bounds=None, real=False, fake=False, eps=eps) for eps in (1.0, 50.0)]
    samples = []
    for recipe in recipes:
        ensembles = [Ensemble(MIXTURES, SEEDS, attack, recipe, dtype=torch.float64) for attack in attacks]
        for ensemble in ensembles:
            ensemble.train(2)
        samples.append([ensemble.sample(5) for ensemble in ensembles])
    assert torch.equal(*samples[0])
    assert not torch.equal(*samples[1])


def test_attacks_that_have_no_place_in_g() -> None:
    with pytest.raises(
        ValueError, match="dat_generator='pass' needs DAT's attack, and the D step's is ASGAN"
    ):
        Ensemble(MIXTURES, SEEDS, ASGAN(eps=0.1, bounds=None), Recipe(dat_generator="pass"))
    Ensemble(
        MIXTURES, SEEDS, ASGAN(eps=0.1, bounds=None), Recipe(dat_generator="pass", generator_attack=OF_G)
    )
    with pytest.raises(ValueError, match="generator_attack would have no effect with dat_generator='none'"):
        Recipe(generator_attack=OF_G)


@pytest.mark.slow
def test_compiled_equals_eager() -> None:
    recipe = Recipe(hidden=8, batch_size=8, layers=1, dat_generator="second_order")
    eager, compiled = (Ensemble(MIXTURES, SEEDS, OF_D, recipe, compile=c) for c in (False, True))
    for ensemble in (eager, compiled):
        ensemble.train(3)
    torch.testing.assert_close(eager.sample(10), compiled.sample(10), rtol=1e-3, atol=1e-4)
