"""Differentiable augmentation: its three parts, its gradients, and DAT steps through it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.parallel import DistributedDataParallel

import fastdat
from fastdat import DATConfig
from fastdat.engine.passes.pooled_conv import PooledConv
from fastdat.nets import Augmented
from fastdat.nets.augmentation import DRAWS, augmented, parse_policy
from tests.compare import assert_step_matches
from tests.residual_discriminators import KINDS

FIRST = DATConfig(eps=30.0, delta_clip=0.3)
SECOND = DATConfig(eps=30.0, delta_clip=0.3, second_order=True)
WHOLE = ("color", "translation", "cutout")
#: Random numbers at both ends of their range, and between.
ENDS = torch.tensor([0.0, 1 - 2**-24, 0.5])


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64) * 2 - 1


def draws_for(count: int) -> Tensor:
    """Every sample has others; the first ones are at the ends."""
    draws = torch.rand(count, DRAWS)
    draws[:3] = ENDS[:, None]
    draws[3, ::2] = 0.0
    return draws


def test_all_is_made_on_the_device_of_the_images() -> None:
    """As on a GPU: an operation on tensors of two devices is an error."""
    x = torch.empty(3, 2, 8, 6, device="meta")
    draws = Augmented(nn.Identity()).draw(x)
    assert (draws.is_meta, draws.shape, draws.dtype) == (True, (3, DRAWS), torch.float32)
    assert augmented(x, draws, WHOLE).is_meta


# --- the transformation ----------------------------------------------------------------------------------------------


def one_image(x: NDArray[Any], u: NDArray[Any], policy: tuple[str, ...]) -> NDArray[Any]:
    """T of one image (C, H, W), pixel by pixel, with the sizes and ranges of the released code."""
    channels, height, width = x.shape
    for name in policy:
        out = np.zeros_like(x)
        if name == "color":
            x = x + (u[0] - 0.5)
            grey = sum(x[c] for c in range(channels)) / channels
            x = np.stack([(x[c] - grey) * (u[1] * 2) + grey for c in range(channels)])
            out = (x - x.sum() / x.size) * (u[2] + 0.5) + x.sum() / x.size
        elif name == "translation":
            most = int(height * 0.125 + 0.5), int(width * 0.125 + 0.5)
            down, right = (int(u[3 + k] * (2 * most[k] + 1)) - most[k] for k in (0, 1))
            for i in range(height):
                for j in range(width):
                    if 0 <= i + down < height and 0 <= j + right < width:
                        out[:, i, j] = x[:, i + down, j + right]
        else:
            size = int(height * 0.5 + 0.5), int(width * 0.5 + 0.5)
            at = [int(u[5 + k] * (n + (1 - size[k] % 2))) for k, n in enumerate((height, width))]
            out[:] = x
            for i in range(size[0]):
                for j in range(size[1]):
                    row, column = at[0] + i - size[0] // 2, at[1] + j - size[1] // 2
                    out[:, min(max(row, 0), height - 1), min(max(column, 0), width - 1)] = 0
        x = out
    return x


@pytest.mark.parametrize("shape", [(3, 9, 12), (1, 8, 10), (3, 28, 31)], ids=str)
@pytest.mark.parametrize(
    "policy",
    ["color", "translation", "cutout", "diffaug", "cutout,color", "translation,cutout", "none"],
)
def test_equals_a_loop_over_pixels(policy: str, shape: tuple[int, ...]) -> None:
    x, draws = images(8, *shape), draws_for(8)
    names = parse_policy(policy)
    expected = np.stack(
        [one_image(*pair, names) for pair in zip(x.numpy(), draws.double().numpy(), strict=True)]
    )
    torch.testing.assert_close(augmented(x, draws, names), torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [28, 32, 48, 64])
def test_shifts_and_cutouts_have_the_papers_range(size: int) -> None:
    """An eighth of the size to either side; half the size, its middle anywhere, also on the border."""
    draws = torch.full((500, DRAWS), 0.5)
    draws[:, 4] = draws[:, 6] = torch.linspace(0, 1 - 2**-24, 500)
    columns = torch.arange(1.0, size + 1).expand(500, 1, size, size)
    moved = augmented(columns, draws, ("translation",))[:, 0, size // 2]
    shifts = moved[:, size // 2] - (size // 2 + 1)
    assert sorted(set(shifts.tolist())) == list(range(-round(size / 8 + 0.01), round(size / 8 + 0.01) + 1))
    kept = augmented(columns, draws, ("cutout",))[:, 0, size // 2] > 0
    assert set((~kept).sum(1).tolist()) == set(range(size // 4, size // 2 + 1))
    assert not kept[0, : size // 4].any(), "the middle on the left border"
    assert not kept[-1, -size // 4 :].any(), "and on the right one"
    counts = torch.unique(shifts, return_counts=True)[1]
    assert counts.min() >= 0.9 * counts.max(), "all shifts are equally likely"


def test_color_has_the_papers_range() -> None:
    draws = torch.full((3, DRAWS), 0.5)
    draws[:, 0] = draws[:, 1] = draws[:, 2] = torch.tensor([0.0, 0.5, 1.0])
    x = images(1, 3, 2, 2).expand(3, -1, -1, -1)
    color = augmented(x, draws, ("color",))
    torch.testing.assert_close(color[1], x[1]), "in the middle of the range nothing changes"
    shifts = (color - x).mean((1, 2, 3))
    torch.testing.assert_close(shifts, torch.tensor([-0.5, 0.0, 0.5], dtype=x.dtype))
    grey, vivid = color[0], color[2]
    torch.testing.assert_close(grey, grey.mean(0, keepdim=True).expand(3, -1, -1))
    assert (vivid - vivid.mean(0)).norm() == pytest.approx(3 * (x[0] - x[0].mean(0)).norm().item())


def test_grey_images_have_no_saturation() -> None:
    x, draws = images(5, 1, 8, 8), draws_for(5)
    other = draws.clone()
    other[:, 1] = 1 - draws[:, 1]
    torch.testing.assert_close(augmented(x, draws, WHOLE), augmented(x, other, WHOLE))


@pytest.mark.parametrize("policy", ["color", "translation", "cutout", "diffaug"])
def test_gradients(policy: str) -> None:
    x, draws, names = images(4, 3, 4, 5).requires_grad_(), draws_for(4), parse_policy(policy)
    assert torch.autograd.gradcheck(lambda x: augmented(x, draws, names), x)
    assert torch.autograd.gradgradcheck(lambda x: augmented(x, draws, names).pow(3), x)


def test_samples_are_independent() -> None:
    x, draws = images(4, 3, 8, 8), draws_for(4)
    other = torch.full_like(x, torch.nan)
    other[2] = x[2]
    assert torch.equal(augmented(other, draws, WHOLE)[2], augmented(x, draws, WHOLE)[2])


def test_half_precision_is_widened_first() -> None:
    """Of G's bf16 images the augmentation is that of their values in fp32."""
    x, draws = images(4, 3, 32, 32).bfloat16(), draws_for(4)
    assert torch.equal(augmented(x, draws, WHOLE), augmented(x.float(), draws, WHOLE))


def test_policies() -> None:
    assert parse_policy("diffaug") == WHOLE
    assert parse_policy("cutout, color") == ("cutout", "color"), "in the given order"
    assert parse_policy("none") == ()
    for wrong in ("colour", "color,color", "", "color,", "diffaug,color"):
        with pytest.raises(ValueError, match=r"is none, diffaug, or some of color,translation,cutout; got"):
            parse_policy(wrong)
    with pytest.raises(ValueError, match=r"takes images \(N, C, H, W\) .* got shapes \(4, 2\) and \(4, 7\)"):
        augmented(torch.zeros(4, 2), torch.zeros(4, DRAWS), WHOLE)
    with pytest.raises(ValueError, match=r"got shapes \(4, 3, 8, 8\) and \(3, 7\)"):
        augmented(torch.zeros(4, 3, 8, 8), torch.zeros(3, DRAWS), WHOLE)


# --- in front of a discriminator -------------------------------------------------------------------------------------


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Samples a side, and the draws of each."""
    xr, xf = images(5, 3, 9, 11).to(dtype), images(5, 3, 9, 11).to(dtype)
    return xr, xf, {"args_real": (draws_for(5),), "args_fake": (torch.rand(5, DRAWS),)}


def test_draws_and_further_arguments() -> None:
    D = Augmented(KINDS["conditional"]().double(), "cutout")
    x, labels = images(5, 3, 9, 11), torch.tensor([0, 4, 2, 2, 1])
    draws = D.draw(x, torch.Generator().manual_seed(3))
    assert (draws.shape, draws.dtype) == ((5, DRAWS), torch.float32)
    assert torch.equal(draws, D.draw(x, torch.Generator().manual_seed(3)))
    assert not torch.equal(draws, D.draw(x))
    D.eval()
    assert torch.equal(D(x, draws, labels), D.D(augmented(x, draws, ("cutout",)), labels))
    assert {id(p) for p in D.parameters()} == {id(p) for p in D.D.parameters()}


@pytest.mark.parametrize(
    ("kind", "order", "compile"),
    [
        *[(kind, order, False) for kind in ("batch norm", "conditional") for order in (1, 2)],
        pytest.param("conditional", 2, True, marks=pytest.mark.slow),
    ],
)
def test_a_step_equals_the_reference(kind: str, order: int, compile: bool) -> None:
    """Of D behind the augmentation, its draws before the labels."""
    config = SECOND if order == 2 else FIRST
    xr, xf, args = batch()
    if kind == "conditional":
        args = {name: (*draws, torch.randint(5, (5,))) for name, draws in args.items()}
    D = Augmented(KINDS[kind]().double())
    assert_step_matches(D, xr, xf, config, "gan", tolerance=1e-12, compile=compile, **args)


@pytest.mark.parametrize("config", [FIRST, SECOND], ids=["first", "second"])
def test_parts_of_a_batch_have_their_own_draws(config: DATConfig) -> None:
    xr, xf, args = batch()
    D = Augmented(KINDS["spectral"]().double())
    assert_step_matches(D, xr, xf, config, "gan", tolerance=1e-12, microbatch=2, **args)


def test_the_attack_moves_the_image_before_the_augmentation() -> None:
    """Pixels that D does not see have no gradient and stay; all others move, within the bounds of images."""
    xr, xf, args = batch()
    D = Augmented(KINDS["plain"]().double(), "cutout")
    _, info = fastdat.dat_step(D, xr, xf, FIRST, "gan", compile=False, with_info=True, **args)
    for x, x_adv, (draws,) in zip((xr, xf), (info.xr_adv, info.xf_adv), args.values(), strict=True):
        unseen = augmented(torch.ones_like(x), draws, ("cutout",)) == 0
        assert unseen.any()
        assert torch.equal(unseen, x_adv == x)
        assert x_adv.abs().max() <= 1


def test_contrast_moves_pixels_that_are_cut_out() -> None:
    """It takes a mean over all pixels before they are cut."""
    xr, xf, args = batch()
    D = Augmented(KINDS["plain"]().double(), "color,cutout")
    _, info = fastdat.dat_step(D, xr, xf, FIRST, "gan", compile=False, with_info=True, **args)
    moved = []
    for x, x_adv, (draws,) in zip((xr, xf), (info.xr_adv, info.xf_adv), args.values(), strict=True):
        unseen = augmented(torch.ones_like(x), draws, ("cutout",)) == 0
        moved.append((x_adv != x)[unseen & (x.abs() < 0.9)])
    assert torch.cat(moved).double().mean() > 0.5


def test_a_discriminator_in_bf16() -> None:
    xr, xf, args = batch(torch.bfloat16)
    D = Augmented(KINDS["plain"]().bfloat16())
    fastdat.dat_step(D, xr, xf, FIRST, "gan", compile=False, **args).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.bfloat16 for p in D.parameters())


@pytest.mark.slow
def test_new_draws_need_no_new_graph(compile_counters: dict[str, Any]) -> None:
    D = Augmented(KINDS["spectral"]())
    losses = []
    for _ in range(3):
        xr, xf, args = batch(torch.float32)
        loss = fastdat.dat_step(D, xr, xf, SECOND, **args)
        loss.backward()
        losses.append(loss.item())
    assert len(set(losses)) == 3
    assert compile_counters["stats"]["unique_graphs"] == 1
    assert not compile_counters["graph_break"]


class Folding:
    """A backend of torch.compile that counts what the pass for convolutions beside pools has put in."""

    def __init__(self) -> None:
        self.folded = 0

    def __call__(self, module: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        def count() -> int:
            return sum("conv_transpose2d" in str(node.target) for node in module.graph.nodes)

        before = count()
        PooledConv()(module.graph)
        module.recompile()
        self.folded += count() - before
        return module.forward


@pytest.mark.slow
def test_convolutions_behind_it_are_folded(monkeypatch: pytest.MonkeyPatch, own_engines: None) -> None:
    folded = []
    for augments in (False, True):
        backend = Folding()
        monkeypatch.setattr(
            "fastdat.engine.compile.compiled",
            lambda function, *_, backend=backend: torch.compile(function, backend=backend, fullgraph=True),
        )
        torch.compiler.reset()
        xr, xf, args = batch(torch.float32)
        D = KINDS["spectral"]()
        fastdat.dat_step(Augmented(D) if augments else D, xr, xf, FIRST, **(args if augments else {}))
        folded.append(backend.folded)
    assert folded[0] == folded[1] > 0


def test_weights_stay_those_of_the_discriminator() -> None:
    """Its optimizer, taken before, trains it; the further draws change nothing but the images."""
    D = KINDS["spectral"]()
    optimizer, names = torch.optim.SGD(D.parameters(), 0.1), list(D.state_dict())
    before = copy.deepcopy(D.state_dict())
    xr, xf, args = batch(torch.float32)
    fastdat.dat_step(Augmented(D), xr, xf, FIRST, compile=False, **args).backward()
    optimizer.step()
    assert list(D.state_dict()) == names
    assert not torch.equal(
        before["head.parametrizations.weight.original"], D.head.parametrizations.weight.original
    )


def test_distributed_must_be_outermost() -> None:
    wrapped = DistributedDataParallel.__new__(DistributedDataParallel)
    nn.Module.__init__(wrapped)
    with pytest.raises(ValueError, match=r"wrap the augmented D, DistributedDataParallel\(Augmented\(D\)\)"):
        Augmented(wrapped)


def test_a_compiled_discriminator_is_unwrapped() -> None:
    """``dat_step`` could not compile it a second time."""
    D = KINDS["plain"]()
    assert Augmented(torch.compile(D)).D is D
