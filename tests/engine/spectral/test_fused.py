"""Fused spectral norm: the numbers, names and habits of torch's, in one operation."""

from __future__ import annotations

import copy
import io
import pickle
from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm as hook_spectral_norm
from torch.nn.utils.parametrizations import spectral_norm as torch_spectral_norm

import fastdat
from fastdat.engine.spectral import normalise as spectral
from fastdat.engine.spectral.fused import FusedSpectralNorm
from fastdat.training.steps import frozen
from tests.compare import assert_step_matches, gradients
from tests.discriminators import Conv, Projection, batch, make

KINDS = pytest.mark.parametrize("kind", ["spectral", "spectral-hook", "conditional"])


def pair(kind: str) -> tuple[nn.Module, nn.Module, tuple[Tensor, ...]]:
    """A D as it is, a fused copy, and arguments of both."""
    D, (x, _, args) = make(kind), batch(kind)
    return D, fastdat.fuse_spectral_norm(copy.deepcopy(D)), (x, *args.get("args_real", ()))


def assert_same_buffers(D: nn.Module, fused: nn.Module) -> None:
    assert list(D.state_dict()) == list(fused.state_dict())
    for name, value in D.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[name], value, rtol=1e-12, atol=1e-12)


@KINDS
@pytest.mark.parametrize("training", [True, False])
def test_outputs_gradients_and_buffers_are_torchs(kind: str, training: bool) -> None:
    """Over several calls, two of them differentiated together, as in a GAN's D step."""
    D, fused, args = pair(kind)
    for net in (D.train(training), fused.train(training)):
        (net(*args) - net(*args).square()).sum().backward()
    torch.testing.assert_close(gradients(fused), gradients(D), rtol=1e-10, atol=1e-12)
    assert_same_buffers(D, fused)


def test_a_layer_on_its_own() -> None:
    theirs, ours = nn.Conv2d(3, 4, 3, dtype=torch.float64), nn.Conv2d(3, 4, 3, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict())
    torch.manual_seed(1)
    theirs = torch_spectral_norm(theirs, n_power_iterations=2)
    torch.manual_seed(1)
    assert fastdat.spectral_norm(ours, n_power_iterations=2) is ours
    assert isinstance(ours.parametrizations.weight[0], FusedSpectralNorm)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))
    assert_same_buffers(theirs, ours)


@KINDS
def test_state_dicts_load_both_ways(kind: str) -> None:
    D, fused, args = pair(kind)
    for net in (D, fused):
        net(*args)
    other_D, other_fused, _ = pair(kind)
    other_D.load_state_dict(fused.state_dict())
    other_fused.load_state_dict(D.state_dict())
    torch.testing.assert_close(other_D.eval()(*args), D.eval()(*args))
    torch.testing.assert_close(other_fused.eval()(*args), D(*args))


@KINDS
def test_copies_are_independent(kind: str) -> None:
    """Before and after a forward."""
    _, fused, args = pair(kind)
    first = copy.deepcopy(fused)
    with torch.no_grad():  # after a forward with a graph, torch's older hook leaves what no one can copy
        fused(*args)
    second = copy.deepcopy(fused)
    before = {name: value.clone() for name, value in second.state_dict().items()}
    for _ in range(3):
        fused(*args)
        first(*args)
    torch.testing.assert_close(second.state_dict(), before, rtol=0, atol=0)
    second(*args)
    changed = [name for name, value in second.state_dict().items() if not torch.equal(value, before[name])]
    assert changed


def test_pickling_where_torch_can() -> None:
    """The older hook pickles; torch's parametrization says that it does not, and still says so."""
    _, fused, args = pair("spectral-hook")
    fused(*args)
    again = pickle.loads(pickle.dumps(fused))
    torch.testing.assert_close(again(*args), fused(*args))
    buffer = io.BytesIO()
    torch.save(fused, buffer)
    buffer.seek(0)
    torch.testing.assert_close(torch.load(buffer, weights_only=False).eval()(*args), fused.eval()(*args))
    with pytest.raises(RuntimeError, match="state_dict"):
        pickle.dumps(pair("spectral")[1])


@pytest.mark.parametrize("kind", ["spectral", "spectral-hook"])
def test_a_forward_that_fails_leaves_nothing_behind(kind: str) -> None:
    D, fused, (x,) = pair(kind)
    for wrong in (x[:, :, :0], x[:, :2]):
        with pytest.raises(RuntimeError):
            fused(wrong)
    with torch.no_grad():
        for p in fused.parameters():  # a factor would leave a weight of norm 1 as it is
            p.copy_(torch.randn_like(p))
    D.load_state_dict(fused.state_dict())
    torch.testing.assert_close(fused.eval()(x), D.eval()(x))


def test_a_layer_called_on_its_own_normalises_itself() -> None:
    D, fused, (x,) = pair("spectral")
    torch.testing.assert_close(fused.conv1(x), D.conv1(x))
    assert_same_buffers(D, fused)


def test_fusing_again_takes_new_layers_in() -> None:
    _, fused, (x,) = pair("spectral")
    fused.extra = torch_spectral_norm(nn.Linear(3, 3, dtype=torch.float64))
    hooks = len(fused._forward_pre_hooks), len(fused._forward_hooks)
    fastdat.fuse_spectral_norm(fused)
    assert (len(fused._forward_pre_hooks), len(fused._forward_hooks)) == hooks
    assert isinstance(fused.extra.parametrizations.weight[0], FusedSpectralNorm)
    whole = nn.Sequential(fused)
    fastdat.fuse_spectral_norm(whole)
    assert not fused._forward_pre_hooks
    assert whole(x).shape == (6, 1)


def test_what_cannot_be_fused_says_so() -> None:
    with pytest.raises(ValueError, match=r"Conv has no spectral norm to fuse: put fastdat.spectral_norm"):
        fastdat.fuse_spectral_norm(Conv())
    with (
        pytest.raises(ValueError, match=r"is not fused: call fastdat.fuse_spectral_norm\(D\)"),
        fastdat.normalised_once(make("spectral")),
    ):
        pass
    chained = nn.utils.parametrizations.weight_norm(torch_spectral_norm(nn.Linear(3, 3)))
    with pytest.raises(NotImplementedError, match="chains spectral norm"):
        fastdat.fuse_spectral_norm(nn.Sequential(chained))


@KINDS
@pytest.mark.parametrize("second_order", [False, True], ids=["first", "second"])
def test_dat_step_on_a_fused_discriminator(kind: str, second_order: bool) -> None:
    D, (xr, xf, args) = fastdat.fuse_spectral_norm(make(kind)), batch(kind)
    config = fastdat.DATConfig(eps=30.0, delta_clip=0.3, second_order=second_order)
    plain, expected = copy.deepcopy(D), make(kind)
    expected.load_state_dict(D.state_dict())
    fastdat.dat_step(plain, xr, xf, config, "gan", compile=False, **args).backward()
    fastdat.reference.dat_step(expected, xr, xf, config, "gan", **args).backward()
    torch.testing.assert_close(gradients(plain), gradients(expected), rtol=1e-9, atol=1e-12)
    assert_same_buffers(expected, plain)
    torch.testing.assert_close(  # D's own calls still work, and still normalise
        plain.eval()(xr, *args.get("args_real", ())), expected.eval()(xr, *args.get("args_real", ()))
    )


@pytest.mark.slow
def test_dat_step_compiled_on_a_fused_discriminator() -> None:
    D, (xr, xf, _) = (
        fastdat.fuse_spectral_norm(make("spectral", torch.float32)),
        batch("spectral", dtype=torch.float32),
    )
    assert_step_matches(D, xr, xf, fastdat.DATConfig(eps=30.0), "gan", tolerance=1e-5, compile=True)


# torch.compile looks for the .grad of every tensor it meets, and hides its own warning by means that "error" defeats.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_by_the_user(compile_counters: dict[str, Counter[str]]) -> None:
    """torch.compile calls the hooks of a whole module outside its graph, and does not trace anew as u moves."""
    D, fused, (x,) = pair("spectral")
    compiled = torch.compile(fused, fullgraph=True)
    graphs = []
    for _ in range(3):
        torch.testing.assert_close(compiled(x), D(x))
        graphs.append(compile_counters["stats"]["unique_graphs"])
    assert_same_buffers(D, fused)
    assert graphs == graphs[:1] * 3


@pytest.mark.slow
def test_inside_a_function_the_user_compiles(compile_counters: dict[str, Counter[str]]) -> None:
    """G's objective, say: there the hooks are part of the graph."""
    D, fused, (x,) = pair("spectral")

    def objective(x: Tensor) -> Tensor:
        return -fused(x * 0.5).mean()

    compiled = torch.compile(objective, fullgraph=True)
    with frozen(fused):
        for _ in range(3):
            mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
            compiled(mine).backward()
            (-D(theirs * 0.5).mean()).backward()
            torch.testing.assert_close(mine.grad, theirs.grad)
    assert_same_buffers(D, fused)
    assert compile_counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("kind", ["spectral", "spectral-hook"])
def test_normalised_once(kind: str) -> None:
    """G's step over two micro-batches: one move of u, and the gradients of both."""
    D, fused, (x,) = pair(kind)
    D(x)  # one move
    with frozen(fused), fastdat.normalised_once(fused):
        halves = []
        for part in x.split(3):
            part = part.clone().requires_grad_()
            fused(part).sum().backward()
            halves.append(part.grad)
    assert_same_buffers(D, fused)
    x = x.clone().requires_grad_()
    D.eval()(x).sum().backward()
    torch.testing.assert_close(torch.cat(halves), x.grad)
    with torch.no_grad():
        for net in (D, fused):
            net.head.bias.add_(1)
            next(net.parameters()).mul_(3)
    torch.testing.assert_close(fused.eval()(x), D(x))


def test_under_autocast_as_torch() -> None:
    D, fused, (x,) = pair("spectral")
    D, fused, x = D.float(), fused.float(), x.float()
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = D(x), fused(x)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    exact = copy.deepcopy(D).double().eval()(x.double())
    assert (found - exact).abs().max() <= 2 * (expected - exact).abs().max() + 1e-3


def test_normalised_once_notices_that_gradients_are_wanted() -> None:
    _, fused, (x,) = pair("spectral")
    with fastdat.normalised_once(fused):
        with torch.no_grad():
            fused(x)
        with fastdat.normalised_once(fused):
            fused(x)
        before = fused.conv1.parametrizations.weight[0]._u.clone()
        fused(x).sum().backward()
    assert fused.conv1.parametrizations.weight.original.grad is not None
    assert torch.equal(fused.conv1.parametrizations.weight[0]._u, before)


def test_a_norm_on_the_module_itself() -> None:
    """torch's older hook runs before D's forward, too: only one of the two may normalise."""
    D = hook_spectral_norm(nn.Linear(40, 30).double())
    fused, x = fastdat.fuse_spectral_norm(copy.deepcopy(D)), torch.randn(3, 40, dtype=torch.float64)
    for _ in range(3):
        torch.testing.assert_close(fused(x), D(x))


def test_a_vector_under_torchs_older_hook() -> None:
    D = nn.Sequential(hook_spectral_norm(nn.LayerNorm(4)), hook_spectral_norm(nn.Linear(4, 1))).double()
    fused, x = fastdat.fuse_spectral_norm(copy.deepcopy(D)), torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(fused(x), D(x))
    fastdat.dat_step(fused, x, x + 1, compile=False).backward()


@pytest.mark.parametrize("norm", [torch_spectral_norm, hook_spectral_norm])
@pytest.mark.parametrize("at", [0, 1])
def test_a_step_of_a_part_whose_loss_takes_the_whole(at: int, norm: Callable[[nn.Module], nn.Module]) -> None:
    """The step supplies the weights of its part, and the other layers normalise themselves."""
    (xr, xf, _), layer = batch("conv"), (nn.Linear(1, 1), nn.Conv2d(3, 3, 1))[at]
    other = norm(layer.double().requires_grad_(False))
    nets = (Conv(norm).double(), other) if at == 0 else (other, Conv(norm).double())
    whole = nn.Sequential(*nets)
    losses = []
    for net in (copy.deepcopy(whole), fastdat.fuse_spectral_norm(copy.deepcopy(whole))):

        def of_whole(D: nn.Module, xr: Tensor, xf: Tensor, net: nn.Module = net) -> Tensor:
            return net(xr).square().mean()

        losses.append(fastdat.dat_step(net[at], xr, xf, compile=False, aux_loss=of_whole))
    torch.testing.assert_close(losses[1], losses[0])


def test_a_norm_that_is_removed() -> None:
    _, fused, (x,) = pair("spectral-hook")
    fused(x)
    expected = fused.eval()(x)
    torch.nn.utils.remove_spectral_norm(fused.conv1)
    torch.testing.assert_close(fused(x), expected)


def test_evaluation_between_forward_and_backward() -> None:
    """u moves after a forward in eval mode, whose backward must not mind."""
    D, fused, (x,) = pair("spectral")
    for net in (D, fused):
        value = net.eval()(x)
        net.train()(x)
        value.sum().backward()
    torch.testing.assert_close(gradients(fused), gradients(D))


def test_the_weight_a_forward_leaves_behind_has_its_graph() -> None:
    """As under torch's older hook, for a penalty on ``layer.weight``."""
    _, fused, (x,) = pair("spectral-hook")
    fused(x)
    fused.conv1.weight.square().sum().backward()
    assert fused.conv1.weight_orig.grad.abs().sum() > 0


class Scaled(nn.Linear):
    """A user's layer that reads its weight itself."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.weight.dtype == torch.float32
        return F.linear(x, self.weight * 0.3, self.bias)


def test_only_layers_that_autocast_casts_get_the_low_precision() -> None:
    net = nn.Sequential(torch_spectral_norm(Scaled(4, 4)), torch_spectral_norm(nn.Linear(4, 1)))
    assert [w.castable for w in spectral.spectral_weights(dict(net.named_modules()))] == [False, True]
    hooked = nn.Sequential(hook_spectral_norm(Scaled(4, 4)), hook_spectral_norm(nn.Linear(4, 1)))
    assert [w.castable for w in spectral.spectral_weights(dict(hooked.named_modules()))] == [False, True]
    fastdat.fuse_spectral_norm(net)
    with torch.autocast("cpu", torch.bfloat16):
        net(torch.randn(5, 4))
        fastdat.dat_step(net, *torch.rand(2, 5, 4), compile=False)
    embedding = Projection()
    kinds = {
        w.original.split(".")[0]: w.castable
        for w in spectral.spectral_weights(dict(embedding.named_modules()))
    }
    assert kinds == {"conv1": True, "conv2": True, "head": True, "embedding": False}


class LastInFullPrecision(nn.Module):
    """A head that runs in fp32 under autocast, as many D have it."""

    def __init__(self, normed: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.hidden, self.head = normed(nn.Linear(4, 6)), normed(nn.Linear(6, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.hidden(x))
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = self.head(h.float())
        return logits


@pytest.mark.parametrize("normed", [torch_spectral_norm, hook_spectral_norm], ids=["parametrization", "hook"])
def test_a_layer_in_full_precision_under_autocast(normed: Callable[[nn.Module], nn.Module]) -> None:
    D = LastInFullPrecision(normed)
    fused, stepped = fastdat.fuse_spectral_norm(copy.deepcopy(D)), copy.deepcopy(D)
    x, xf = torch.rand(2, 5, 4) * 2 - 1
    heads = []
    for net in (D, fused, stepped):
        net.head.register_forward_hook(
            lambda module, inputs, output: heads.append(module.weight.detach().clone())
        )
    with torch.autocast("cpu", torch.bfloat16):
        D(x)
        fused(x)
        loss = fastdat.dat_step(stepped, x, xf, compile=False)
    loss.backward()
    assert {head.dtype for head in heads} == {torch.float32}
    for head in heads[1:]:  # nowhere rounded to bf16, whose step is 4e-3
        torch.testing.assert_close(head, heads[0], rtol=1e-5, atol=1e-6)
    assert_same_buffers_as(stepped, D)
    assert_same_buffers_as(fused, D)


def assert_same_buffers_as(net: nn.Module, D: nn.Module) -> None:
    """u and v moved once, up to rounding."""
    for name, value in D.named_buffers():
        torch.testing.assert_close(dict(net.named_buffers())[name], value, rtol=1e-4, atol=1e-5)


def test_only_a_layer_under_autocast_gets_the_low_precision() -> None:
    D = LastInFullPrecision(torch_spectral_norm)
    weights = spectral.spectral_weights(dict(D.named_modules()))
    assert [w.layer for w in weights] == ["hidden", "head"]
    with torch.autocast("cpu", torch.bfloat16), spectral.cast_where_called(D, weights, "cpu") as found:
        D(torch.rand(3, 4))
    assert [w.castable for w in found] == [True, False]
    with torch.autocast("cpu", torch.bfloat16), spectral.cast_where_called(D, weights, "cpu") as found:
        D.hidden(torch.rand(3, 4))
    assert [w.castable for w in found] == [True, False], "the head was not called"
    assert not D.hidden._forward_pre_hooks
