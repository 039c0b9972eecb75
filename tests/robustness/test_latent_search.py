"""The search for adversarial examples in latent space, against the closed form of linear nets."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat.robustness import LatentShare, latent_adversarial_share, logits_of
from tests import discriminators
from tests.robustness.linear_nets import LinearD, LinearG

LONG: dict[str, Any] = {"steps": 200, "lr": 0.01, "restarts": 1, "penalty": 1.0}
"""A search that comes close to the optimum of a linear problem; that of the defaults reaches some 60 % of the rise."""


def gains(G: LinearG, D: LinearD, radius: float, norm: str) -> float:
    """The most that D(G(z)) can rise within the radius, for invertible or tall A."""
    A, w = G.matrix, D.direction
    if norm == "linf":  # A is the identity on the first numbers here
        return radius * float((w @ A).abs().sum())
    onto = A @ torch.linalg.pinv(A)  # the moves of G are those of A's column space
    return radius * float((onto @ w).norm()) * (math.sqrt(6) if norm == "rms" else 1)


@pytest.mark.parametrize("norm", ["rms", "l2"])
@pytest.mark.parametrize("radius", [0.05, 0.1])
def test_linear_nets_give_the_closed_form(norm: Any, radius: float) -> None:
    """Success if and only if (t - D) / ||P w|| <= radius, P the projection on the images that G can make."""
    G, D = LinearG(), LinearD()
    z = torch.randn(200, 4, dtype=torch.float64)
    before = D(G(z)).detach()[:, 0]
    gain = gains(G, D, radius, norm)
    threshold = float(before.mean())
    found = latent_adversarial_share(G, D, z, threshold=threshold, radius=radius, norm=norm, **LONG)
    torch.testing.assert_close(found.logits_before, before, rtol=0, atol=1e-12)
    missing = threshold - before
    assert torch.equal(found.eligible, missing > 0)
    assert not found.success[missing > gain * (1 + 1e-9)].any(), "more than the radius allows"
    assert found.success[(missing > 0) & (missing < 0.9 * gain)].all()
    assert 0.02 < found.share < 0.98, "both verdicts occur"
    assert (found.distances <= radius).all()
    torch.testing.assert_close(D(G(found.latents))[:, 0], found.logits_after, rtol=0, atol=1e-12)


def test_the_largest_change_of_a_pixel() -> None:
    """With A = (diagonal, 0), a move of at most r in each number raises D by r ||w||_1 of the numbers that move."""
    G, D = LinearG(), LinearD()
    with torch.no_grad():
        G.layer.weight.zero_()
        G.layer.weight[:4] = torch.diag(torch.tensor([1.0, -2.0, 0.5, 1.5], dtype=torch.float64))
    z = torch.randn(100, 4, dtype=torch.float64)
    gain = 0.1 * float(D.direction[:4].abs().sum())
    before = D(G(z)).detach()[:, 0]
    found = latent_adversarial_share(
        G, D, z, threshold=1e3, radius=0.1, norm="linf", steps=600, lr=0.001, penalty=1.0
    )
    risen = (found.logits_after - before) / gain
    assert risen.max() <= 1 + 1e-9
    assert risen.median() > 0.9
    moved = (G(found.latents) - G(z)).flatten(1).abs().amax(1)
    torch.testing.assert_close(found.distances, moved.detach(), rtol=0, atol=1e-12)


def test_the_three_distances() -> None:
    """Of the same images: rms is l2 divided by the root of the number of elements, 6."""
    G, D, z = LinearG(), LinearD(), torch.randn(5, 4, dtype=torch.float64)
    for norm, power in (("rms", 1 / math.sqrt(6)), ("l2", 1.0)):
        found = latent_adversarial_share(G, D, z, threshold=1e3, norm=norm, radius=0.1, **LONG)
        moved = (G(found.latents) - G(z)).detach().flatten(1).square().sum(1).sqrt() * power
        torch.testing.assert_close(found.distances, moved, rtol=0, atol=1e-12)
        assert found.distances.median() > 0.05


def test_the_midpoint_is_that_of_evaluated_nets() -> None:
    G = nn.Sequential(LinearG(), nn.Dropout(0.9))
    D, z, xr = LinearD(), torch.randn(7, 4, dtype=torch.float64), torch.randn(3, 2, 1, 3, dtype=torch.float64)
    expected = (D(xr).mean() + D(G[0](z)).mean()).item() / 2
    found = latent_adversarial_share(G.train(), D, z, xr=xr, steps=1)
    assert found.threshold == pytest.approx(expected, abs=1e-12)
    assert found.eligible_share == pytest.approx(float((D(G[0](z)) < expected).double().mean()))


def test_another_threshold_is_that_of_a_new_search() -> None:
    G, D, z = LinearG(), LinearD(), torch.randn(40, 4, dtype=torch.float64)
    middle = float(D(G(z)).detach().median())
    high = latent_adversarial_share(G, D, z, threshold=middle + 0.2, steps=20)
    low = latent_adversarial_share(G, D, z, threshold=middle, steps=20)
    assert torch.equal(high.at(middle).success, low.success)
    assert 0 < high.at(middle).share == low.share < 1
    with pytest.raises(ValueError, match="were not searched; got threshold"):
        low.at(middle + 0.1)


def test_samples_that_d_takes_for_real_are_not_eligible() -> None:
    logits = torch.tensor([-1.0, 0.0, 0.2, -0.5])
    of_search = LatentShare(
        0.0, logits, torch.tensor([0.0, 0.5, 0.2, -0.1]), logits, logits[:, None], 0.0, "rms", 0.1, 1, 1
    )
    assert of_search.eligible.tolist() == [True, False, False, True]
    assert of_search.success.tolist() == [True, False, False, False]
    assert (of_search.share, of_search.eligible_share) == (0.5, 0.5)
    nothing = latent_adversarial_share(LinearG(), LinearD(), torch.zeros(3, 4).double(), threshold=-1e3)
    assert math.isnan(nothing.share)
    assert nothing.eligible_share == 0


def test_more_restarts_and_steps_find_no_less() -> None:
    torch.manual_seed(1)
    G = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 6)).double()
    D = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1)).double()
    z = torch.randn(50, 4, dtype=torch.float64)

    def after(restarts: int, steps: int) -> Tensor:
        return latent_adversarial_share(
            G, D, z, threshold=9.0, restarts=restarts, steps=steps, radius=0.5
        ).logits_after

    few = after(1, 10)
    assert (after(3, 10) >= few).all()
    assert (after(3, 10) > few).any()
    assert (after(1, 40) >= few).all()
    assert (after(1, 40) > few).any()


def labelled_nets() -> tuple[nn.Module, nn.Module]:
    class G(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.of_class = nn.Embedding(5, 192)
            self.layer = nn.Linear(4, 192)

        def forward(self, z: Tensor, y: Tensor) -> Tensor:
            return torch.tanh(self.layer(z) + self.of_class(y)).reshape(-1, 3, 8, 8)

    return G(), discriminators.make("conditional", torch.float32)


def test_parts_and_labels_change_nothing() -> None:
    G, D = labelled_nets()
    z, y = torch.randn(7, 4), torch.randint(5, (7,))
    given: dict[str, Any] = {"threshold": 0.3, "args_g": (y,), "args_d": (y,), "steps": 8}
    whole = latent_adversarial_share(G, D, z, **given)
    parts = latent_adversarial_share(G, D, z, batch_size=3, **given)
    alone = latent_adversarial_share(
        G, D, z[4:5], **given | {"args_g": (y[4:5],), "args_d": (y[4:5],), "restarts": 1}
    )
    torch.testing.assert_close(parts.logits_after, whole.logits_after, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone.logits_before, whole.logits_before[4:5], rtol=1e-5, atol=1e-6)
    assert (whole.logits_after > whole.logits_before)[whole.eligible].all()


@pytest.mark.parametrize("kind", ["spectral", "spectral-hook", "fused", "two-heads", "batchnorm"])
def test_the_nets_stay_as_they_were(kind: str) -> None:
    """u and v of spectral norm, statistics of batch norm, modes, gradients and random numbers."""
    D = discriminators.make("spectral" if kind == "fused" else kind, torch.float32)
    if kind == "fused":
        fastdat.fuse_spectral_norm(D)
    G = nn.Sequential(nn.Linear(4, 192), nn.BatchNorm1d(192), nn.Unflatten(1, (3, 8, 8)))
    G.eval()
    next(iter(D.parameters())).grad = torch.ones_like(next(iter(D.parameters())))
    last = list(D.parameters())[-1].requires_grad_(False)
    before = copy.deepcopy((G.state_dict(), D.state_dict()))
    with torch.no_grad():
        latent_adversarial_share(G, D, torch.randn(6, 4), xr=torch.randn(6, 3, 8, 8), steps=3, noise=0.1)
        assert not torch.is_grad_enabled()
    torch.testing.assert_close((G.state_dict(), D.state_dict()), before, rtol=0, atol=0)
    assert (D.training, G.training) == (True, False)
    assert all(m.training for m in D.modules())
    grads = [p.grad for p in (*G.parameters(), *D.parameters())]
    assert sum(grad is not None for grad in grads) == 1
    assert not last.requires_grad
    assert all(p.requires_grad for p in list(D.parameters())[:-1])


def test_random_numbers_are_left_alone() -> None:
    class Noisy(LinearD):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + 1e-3 * torch.randn_like(x))

    G, D, z = LinearG(), Noisy(), torch.randn(6, 4, dtype=torch.float64)
    state = torch.get_rng_state()
    latent_adversarial_share(G, D, z, threshold=9.0, steps=2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_compiled_as_eager() -> None:
    """One compilation serves parts of all sizes: they are filled up."""
    G = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 192), nn.Unflatten(1, (3, 8, 8)))
    D, z = discriminators.make("spectral", torch.float32), torch.randn(11, 4)
    threshold = float(logits_of(D, G(z)).detach().quantile(0.7))
    eager, compiled = [
        latent_adversarial_share(G, D, z, threshold=threshold, steps=6, batch_size=4, compile=compile)
        for compile in (False, True)
    ]
    torch.testing.assert_close(compiled.logits_after, eager.logits_after, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(compiled.latents, eager.latents, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": "midpoint"}, "needs reals: give xr=, or threshold=0"),
        ({"threshold": math.nan}, 'threshold must be "midpoint" or a finite number; got nan'),
        ({"threshold": "zero"}, "threshold must be \"midpoint\" or a finite number; got 'zero'"),
        ({"norm": "l1"}, "norm must be one of rms, linf, l2; got 'l1'"),
        ({"radius": 0.0}, "radius must be a finite number > 0; got 0.0"),
        ({"restarts": 0}, "restarts must be an integer >= 1; got 0"),
        ({"steps": 1.5}, "steps must be an integer >= 1; got 1.5"),
        ({"noise": -1.0}, "noise must be a finite number >= 0; got -1.0"),
        ({"args_g": (torch.zeros(2),)}, "args_g must hold tensors with a row for each of the 3 z; got shape"),
        ({"args_d": (5,)}, "args_d must hold tensors with a row for each of the 3 z; got 5"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        latent_adversarial_share(
            LinearG(), LinearD(), torch.zeros(3, 4).double(), **{"threshold": 0.0} | changes
        )


def test_a_discriminator_of_patches_is_refused() -> None:
    D = nn.Conv2d(2, 1, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"one logit a sample.*got shape \(3, 1, 1, 3\) for N=3"):
        latent_adversarial_share(LinearG(), D, torch.zeros(3, 4).double(), threshold=0.0)
