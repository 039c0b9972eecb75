"""docs/frameworks.md: each loop runs as pasted, trains both nets, and takes the gradient of the reference."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdat
from fastdat.metrics.fidelity import torch_fidelity
from tests.environment import REPOSITORY
from tests.test_readme import python_blocks

PAGE = REPOSITORY / "docs" / "frameworks.md"
SHARED, LIGHTNING, ACCELERATE, MIMICRY, STYLEGAN = range(5)
"""The blocks of the page; each of the four loops needs the names of the shared one."""


class Page:
    """Runs blocks of the page, and keeps what they train.

    Attributes:
        names: what the blocks have defined.
        losses: of D's steps.
        nets: those that ``nets()`` has made, with their first weights.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, compile: bool) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.losses: list[float] = []
        self.nets: list[tuple[nn.Module, nn.Module]] = []
        step = fastdat.dat_step

        def dat_step(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs, compile=compile)
            loss = result[0] if isinstance(result, tuple) else result
            self.losses.append(loss.item())
            return result

        monkeypatch.setattr(fastdat, "dat_step", dat_step)
        self.run(SHARED)

    def run(self, number: int) -> None:
        exec(compile(list(python_blocks(PAGE))[number], str(PAGE), "exec"), self.names)

    def keep_nets(self, make: Callable[[], tuple[nn.Module, nn.Module]] | None = None) -> None:
        """Note the nets that the page makes from now on; with ``make``, have it make these."""
        make = make or self.names["nets"]

        def nets() -> tuple[nn.Module, nn.Module]:
            made = make()
            self.nets.extend((net, copy.deepcopy(net)) for net in made)
            return made

        self.names["nets"] = nets

    def check(self, d_steps: int) -> None:
        """Both nets have learned in all their weights, and D in ``d_steps`` steps."""
        assert len(self.losses) == d_steps
        assert torch.tensor(self.losses).isfinite().all()
        assert len(set(self.losses)) == d_steps
        assert len(self.nets) == 2
        for net, before in self.nets:
            for (name, weight), old in zip(net.named_parameters(), before.parameters(), strict=True):
                assert weight.isfinite().all(), name
                assert not torch.equal(weight, old), name
                assert weight.requires_grad, name


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Page:
    monkeypatch.chdir(tmp_path)
    return Page(monkeypatch, compile=False)


def small_nets() -> tuple[nn.Module, nn.Module]:
    """Nets of the page's shapes that compile in seconds."""
    G = nn.Sequential(nn.Linear(128, 3072), nn.Tanh(), nn.Unflatten(1, (3, 32, 32)))
    D = nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1, bias=False))
    return G, D


# Lightning, on its own use of torch's pytrees.
lightning_warnings = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


def need(package: str) -> None:
    torch_fidelity()  # lightning imports torchvision, which a CPU build of torch may not fit
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'fastdat[frameworks]'")


@lightning_warnings
def test_lightning(page: Page) -> None:
    need("lightning")
    page.keep_nets()
    page.run(LIGHTNING)
    page.check(d_steps=4)
    assert page.names["trainer"].global_step == 4 + 2, "the steps of both optimizers, as the page says"
    assert {"loss_d", "loss_g"} <= set(page.names["trainer"].logged_metrics)


def test_accelerate(page: Page) -> None:
    need("accelerate")
    page.keep_nets()
    page.run(ACCELERATE)
    page.check(d_steps=4)


def test_stylegan_like_loop(page: Page) -> None:
    page.keep_nets()
    page.run(STYLEGAN)
    page.check(d_steps=4 * 2)
    (G, before), average = page.nets[0], page.names["G_ema"]
    for kept, first, last in zip(average.parameters(), before.parameters(), G.parameters(), strict=True):
        assert not kept.requires_grad
        assert 0 < (kept - first).norm() < (last - first).norm()


@pytest.mark.slow
@lightning_warnings
@pytest.mark.parametrize("number", [LIGHTNING, ACCELERATE], ids=["lightning", "accelerate"])
def test_the_compiled_step_takes_part_as_well(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    need("lightning" if number == LIGHTNING else "accelerate")
    monkeypatch.chdir(tmp_path)
    losses = []
    for compiled in (False, True):
        with monkeypatch.context() as patch:
            torch.manual_seed(0)
            page = Page(patch, compile=compiled)
            page.keep_nets(small_nets)
            page.run(number)
            page.check(d_steps=4)
            losses.append(page.losses)
    assert losses[1] == pytest.approx(losses[0], rel=1e-2 if number == ACCELERATE else 1e-4)  # bf16


class Log(dict[str, float]):
    """What mimicry's MetricLog is for a step."""

    def add_metric(self, name: str, value: float, group: str) -> None:
        self[name] = value


class Fakes:
    """Stands for mimicry's G."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def generate_images(self, num_images: int, device: torch.device | None = None) -> Tensor:
        return self.images[:num_images].to(device)


def test_a_step_of_mimicry_takes_the_gradient_of_the_reference(page: Page) -> None:
    page.run(MIMICRY)
    D = page.names["Discriminator"](32, ndf=8)
    twin = copy.deepcopy(D)
    xr, xf = torch.rand(4, 3, 32, 32) * 2 - 1, torch.randn(5, 3, 32, 32).tanh()
    before = [weight.detach().clone() for weight in D.parameters()]
    log = D.train_step(
        (xr, torch.arange(4)),
        netG=Fakes(xf),
        optD=torch.optim.SGD(D.parameters(), lr=1.0),
        log_data=Log(),
        device=torch.device("cpu"),
        global_step=0,
        scaler=None,
    )
    loss, info = fastdat.reference.dat_step(twin, xr, xf[:4], with_info=True)
    expected = torch.autograd.grad(loss, list(twin.parameters()))
    taken = [old - new.detach() for old, new in zip(before, D.parameters(), strict=True)]
    torch.testing.assert_close(taken, list(expected), rtol=1e-3, atol=1e-5)
    assert log == pytest.approx(
        {
            "errD": loss.item(),
            "D(x)": info.logits_real.mean().item(),
            "D(G(z))": info.logits_fake.mean().item(),
        },
        rel=1e-4,
    )


def test_r1_of_the_page_is_r1_as_a_phase_and_in_the_step(page: Page) -> None:
    """Its value for a linear D, and its gradient with that of the step, in one graph and in two."""
    page.run(STYLEGAN)
    r1, gamma = page.names["r1"], page.names["r1_gamma"]
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 1))
    xr, xf = torch.randn(6, 3, 4, 4).tanh(), torch.randn(6, 3, 4, 4).tanh()
    torch.testing.assert_close(r1(linear, xr, None), gamma / 2 * linear[1].weight.square().sum())
    D = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(16, 1))
    losses = (
        fastdat.dat_step(D, xr, xf, loss="gan") + r1(D, xr, None),
        fastdat.dat_step(D, xr, xf, loss="gan", aux_loss=r1),
    )
    apart, together = (torch.autograd.grad(loss, list(D.parameters())) for loss in losses)
    torch.testing.assert_close(apart, together)
