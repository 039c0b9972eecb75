"""An ensemble gives the same as its members trained separately, and each member has its own random numbers."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

import fastdat.reference
from fastdat.config import DATConfig
from fastdat.data.mixture import BALANCED, IMBALANCED
from fastdat.experiments.points import ensemble as ensemble_module
from fastdat.experiments.points.ensemble import Ensemble, Recipe, batches, build_nets
from fastdat.experiments.points.fig3 import ARMS
from fastdat.losses import generator_loss

MIXTURES = (BALANCED, IMBALANCED)


@pytest.mark.parametrize("attack", ARMS.values(), ids=ARMS.keys())
def test_ensemble_equals_separate_runs(attack: DATConfig) -> None:
    """The separate runs use plain modules, the reference step and one Adam per net; three iterations in float64."""
    seeds, recipe = (4, 7), Recipe(hidden=16, batch_size=12)
    ensemble = Ensemble(MIXTURES, seeds, attack, recipe, dtype=torch.float64)
    ensemble.train(3)
    member = 0
    for mixture in MIXTURES:
        for seed in seeds:
            G, D = (net.double() for net in build_nets(seed, recipe))
            adam_g, adam_d = (
                torch.optim.Adam(net.parameters(), lr=recipe.lr, betas=recipe.betas) for net in (G, D)
            )
            like = torch.empty(0, dtype=torch.float64)
            for batch in islice(batches([mixture], [seed], recipe.batch_size, recipe.nz, like), 3):
                xr, z_d, z_g = (part.squeeze(0) for part in batch)
                adam_d.zero_grad()
                fastdat.reference.dat_step(D, xr, G(z_d).detach(), config=attack, loss="gan").backward()
                adam_d.step()
                adam_g.zero_grad()
                generator_loss("gan", D(G(z_g))).backward()
                adam_g.step()
            for net, stacked in ((D, ensemble.d_params), (G, ensemble.g_params)):
                for name, param in net.named_parameters():
                    torch.testing.assert_close(stacked[name][member], param, rtol=1e-9, atol=1e-12)
            member += 1
    assert member == len(ensemble)


def test_members_do_not_depend_on_each_other() -> None:
    attack, recipe = ARMS["DAT"], Recipe(hidden=8)
    both = Ensemble(MIXTURES, (0, 1, 2), attack, recipe, dtype=torch.float64)
    alone = Ensemble((IMBALANCED,), (1,), attack, recipe, dtype=torch.float64)
    for ensemble in (both, alone):
        ensemble.train(2)
    torch.testing.assert_close(both.sample(20)[1, 1], alone.sample(20)[0, 0], rtol=1e-9, atol=1e-12)


def test_numbers_do_not_depend_on_how_iterations_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble_module, "CHUNK", 4)
    recipe = Recipe(hidden=8, batch_size=4)
    whole, parts = (Ensemble(MIXTURES, (0, 1), ARMS["DAT"], recipe) for _ in range(2))
    whole.train(9)
    for iterations in (1, 0, 2, 6):
        parts.train(iterations)
        parts.sample(3)  # sampling must not change the training
    assert torch.equal(whole.sample(10), parts.sample(10))


def test_seeds_differ_and_mixtures_share_noise() -> None:
    like = torch.empty(0)
    xr, z_d, z_g = next(batches(MIXTURES, (0, 1), 8, 3, like))
    assert xr.shape == (4, 8, 2)
    assert z_d.shape == z_g.shape == (4, 8, 3)
    assert torch.equal(z_d[0], z_d[2])  # seed 0 in both mixtures
    assert not torch.equal(z_d[0], z_d[1])
    assert not torch.equal(z_d, z_g)
    assert not torch.equal(xr[0], xr[2])


def test_shape_of_samples() -> None:
    ensemble = Ensemble(MIXTURES, range(3), ARMS["no attack"], Recipe(hidden=8))
    assert ensemble.sample(7).shape == (2, 3, 7, 2)
    assert len(ensemble) == 6


def test_global_generator_is_not_used() -> None:
    before = torch.get_rng_state()
    ensemble = Ensemble((BALANCED,), (0,), ARMS["DAT"], Recipe(hidden=8))
    ensemble.train(1)
    ensemble.sample(4)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_members() -> None:
    with pytest.raises(ValueError, match="1 and 0"):
        Ensemble((BALANCED,), (), ARMS["DAT"])


@pytest.mark.slow
def test_compiled_equals_eager() -> None:
    recipe = Recipe(hidden=8, batch_size=8, layers=1)
    eager, compiled = (Ensemble(MIXTURES, (0, 1), ARMS["DAT"], recipe, compile=c) for c in (False, True))
    for ensemble in (eager, compiled):
        ensemble.train(3)
    torch.testing.assert_close(eager.sample(10), compiled.sample(10), rtol=1e-3, atol=1e-4)
