"""Settings that move along a cosine during training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fastdat.training import ConfigError, TrainConfig
from fastdat.training.cosine import Cosine, CosineConfig
from fastdat.training.ema import EMA

STEPS = 8


def adam(lr: float = 1.0, beta2: float = 0.9) -> torch.optim.Adam:
    return torch.optim.Adam(nn.Linear(1, 1).parameters(), lr=lr, betas=(0.25, beta2))


def test_start_middle_and_end() -> None:
    """Half-way, a cosine is in the middle; after a quarter, at 1 - (1 + sqrt(1/2)) / 2 of its way."""
    optimizers = [adam(1.0, 0.9), adam(4.0, 0.5)]
    strength = torch.tensor(0.05)
    cosine = Cosine(CosineConfig(lr=0.5, beta2=0.7, regularizers=0.1), STEPS, optimizers, [(strength, 0.05)])
    quarter = (1 - math.sqrt(0.5)) / 2
    for done, way in ((0, 0.0), (2, quarter), (4, 0.5), (6, 1 - quarter), (8, 1.0), (3000, 1.0)):
        cosine.set(done)
        groups = [optimizer.param_groups[0] for optimizer in optimizers]
        assert [group["lr"] for group in groups] == pytest.approx([1 - 0.5 * way, 4 - 3.5 * way])
        assert [group["betas"][1] for group in groups] == pytest.approx([0.9 - 0.2 * way, 0.5 + 0.2 * way])
        assert [group["betas"][0] for group in groups] == [0.25, 0.25]
        assert strength.item() == pytest.approx(0.05 - 0.045 * way)


def test_the_end_may_come_before_that_of_the_run() -> None:
    optimizer = adam()
    cosine = Cosine(CosineConfig(steps=4, lr=0.5), STEPS, [optimizer])
    for done, lr in ((2, 0.75), (4, 0.5), (7, 0.5)):
        cosine.set(done)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(lr)


def test_what_does_not_move_stays() -> None:
    optimizer, average = adam(), EMA(nn.Linear(1, 1), 0.75)
    strength = torch.tensor(3.0)
    Cosine(CosineConfig(), STEPS, [optimizer], [(strength, 5.0)], average).set(5)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]) == (1.0, (0.25, 0.9))
    assert (strength.item(), average.decay) == (3.0, 0.75)


def test_the_half_life_of_the_average_grows() -> None:
    """A decay of 1/2 per 16 steps at the end: per 8 in the middle; at the start the average is the net itself."""
    net = nn.Linear(2, 2)
    average = EMA(net, 0.5 ** (1 / 16))
    with torch.no_grad():
        net.weight.fill_(7.0)
    cosine = Cosine(CosineConfig(ema_halflife=True), STEPS, [], ema=average)
    for done, halflife in ((4, 8.0), (8, 16.0), (9, 16.0)):
        cosine.set(done)
        assert average.decay == pytest.approx(0.5 ** (1 / halflife))
    cosine.set(0)
    assert average.decay == 0.0
    average.update()
    assert torch.equal(average.net.weight, net.weight)  # type: ignore[arg-type]


def test_tensors_are_set_in_place() -> None:
    """A captured graph reads them."""
    rate = torch.tensor(1.0)
    optimizer = adam()
    optimizer.param_groups[0]["lr"] = rate
    cosine = Cosine(CosineConfig(lr=0.5), STEPS, [optimizer])
    cosine.set(4)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.75)


def test_the_start_is_that_of_the_run_and_not_of_a_checkpoint() -> None:
    """A loaded state has the rates of the step at which it was saved, in new groups."""
    optimizer = adam()
    cosine = Cosine(CosineConfig(lr=0.5, beta2=0.7), STEPS, [optimizer])
    cosine.set(6)
    state = optimizer.state_dict()
    resumed = adam()
    other = Cosine(CosineConfig(lr=0.5, beta2=0.7), STEPS, [resumed])
    resumed.load_state_dict(state)
    for each in (cosine, other):
        each.set(2)
    assert optimizer.param_groups[0]["lr"] == resumed.param_groups[0]["lr"]
    assert optimizer.param_groups[0]["betas"] == resumed.param_groups[0]["betas"]


def test_betas_need_adam() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    with pytest.raises(
        ConfigError, match=r"cosine.beta2 moves the second beta of Adam, and SGD has no betas"
    ):
        Cosine(CosineConfig(beta2=0.9), STEPS, [optimizer])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cosine.lr": 0}, "cosine.lr must be a finite number > 0 or None .* as lr_decay says; got 0"),
        ({"cosine.beta2": 1.0}, "cosine.beta2 must be a finite number >= 0 and < 1 or None"),
        ({"cosine.steps": 5}, "cosine.steps=5 would have no effect: set what moves, cosine.lr"),
        ({"cosine.lr": 1e-5}, "cosine.lr=1e-05 and lr_decay=linear both set the rates: set lr_decay=none"),
        ({"cosine.regularizers": 0.5}, "cosine.regularizers=0.5 would have no effect: there are no regular"),
        (
            {"cosine.ema_halflife": True},
            "cosine.ema_halflife would have no effect: there is no running average",
        ),
        ({"cosine.beta": 0.5}, r"unknown setting cosine.beta. Did you mean cosine.beta2\?"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig().replace(settings)
