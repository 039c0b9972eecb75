"""Bad input gets an error that says what was given, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import fastdat
from fastdat.engine.checks import check_precision
from fastdat.regularizers import AR, R1, RFM
from fastdat.regularizers.term import Term
from tests.discriminators import Conv, batch, make


def step(D: nn.Module, xr: Tensor, xf: Tensor, *args: object, **kwargs: object) -> object:
    return fastdat.dat_step(D, xr, xf, *args, compile=False, **kwargs)


X, Y = torch.rand(2, 4, 3, 8, 8).unbind()
LONG = torch.randint(0, 255, (4, 3, 8, 8), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("xr", "xf", "error", "says"),
    [
        (X, Y[:3], ValueError, r"one shape: got \(4, 3, 8, 8\) and \(3, 3, 8, 8\).*drop_last"),
        (X, X.double(), ValueError, r"one dtype: got torch.float32 and torch.float64"),
        (X, X.to("meta"), ValueError, r"one device: got cpu and meta"),
        (LONG, LONG + 1, TypeError, r"xr must be floating point.*uint8.*x.float\(\) / 127.5 - 1"),
        (X.half(), Y.half(), TypeError, r"float16.*bfloat16"),
        (X[:0], Y[:0], ValueError, r"must hold samples.*\(0, 3, 8, 8\)"),
        (X[:1], Y[:1], ValueError, r"at least 2 samples a side.*got 1"),
        (X.numpy(), Y, TypeError, r"xr must be a tensor.*ndarray"),
        (X, None, TypeError, r"xf must be a tensor.*NoneType"),
    ],
)
def test_samples(xr: Tensor, xf: Tensor, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        step(Conv(), xr, xf)


def test_device_of_the_discriminator() -> None:
    with pytest.raises(ValueError, match=r"D is on meta .*and the samples on cpu"):
        step(Conv().to("meta"), X, Y)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_check_finite(value: float) -> None:
    bad = X.clone()
    bad[2, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"xf holds 1 values that are NaN or Inf, in samples \[2\]"):
        step(Conv(), X, bad, check_finite=True)


def test_nan_shows_in_the_loss() -> None:
    bad = X.clone()
    bad[2, 0, 0, 0] = torch.nan
    assert torch.isnan(step(Conv(), X, bad))


class Returns(nn.Module):
    def __init__(self, output: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.output = output

    def forward(self, x: Tensor) -> object:
        return self.output(x * self.scale)


@pytest.mark.parametrize(
    ("output", "error", "says"),
    [
        (
            lambda x: x.mean(1),
            ValueError,
            r"shape \(4,\) or \(4, 1\), got torch.float32 of shape \(4, 8, 8\)",
        ),
        (lambda x: x.mean(), ValueError, r"got torch.float32 of shape \(\)"),
        (lambda x: x.flatten(1)[:, :2], ValueError, r"of shape \(4, 2\)"),
        (lambda x: {"logits": x}, TypeError, "tuple with logits first, got dict"),
        (lambda x: None, TypeError, "got NoneType"),
        (lambda x: (), TypeError, "got tuple"),
        (lambda x: (x.flatten(1).sum(1), None), TypeError, "output 1 is NoneType"),
        (lambda x: x.flatten(1).sum(1).long(), ValueError, "torch.int64"),
    ],
)
def test_outputs_of_the_discriminator(output: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        step(Returns(output), X, Y)


def test_fp16_autocast() -> None:
    with torch.autocast("cpu", torch.float16), pytest.raises(TypeError, match=r"fp16 autocast.*bfloat16"):
        step(Conv(), X, Y)


@pytest.mark.parametrize(
    ("loss", "error", "says"),
    [("ns", ValueError, "unknown loss 'ns': choose one of hinge, gan"), (3, TypeError, "g1 and g2.*got int")],
)
def test_losses(loss: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        step(Conv(), X, Y, loss=loss)


def test_config_type() -> None:
    with pytest.raises(TypeError, match=r"config must be a fastdat.DATConfig, or .*, got dict"):
        step(Conv(), X, Y, {"eps": 1})


@pytest.mark.parametrize("term", [AR(), RFM("conv2"), R1()], ids=lambda term: term.name)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_precision_of_regularizers(term: Term, dtype: torch.dtype, autocast: bool) -> None:
    """Those that compare D at close samples are refused in half precision, and no others."""
    half = autocast or dtype in (torch.bfloat16, torch.float16)
    refused = pytest.raises(TypeError, match=rf"the regularizer {term.name} compares D at samples")
    with (
        torch.autocast("cpu", torch.bfloat16, autocast),
        refused if half and term.name != "r1" else nullcontext(),
    ):
        check_precision([R1(), term], X.to(dtype))


def test_discriminator_type() -> None:
    with pytest.raises(TypeError, match=r"D must be a torch.nn.Module, got function"):
        step(lambda x: x, X, Y)
    with pytest.raises(NotImplementedError, match=r"DataParallel.*DistributedDataParallel"):
        step(nn.DataParallel(Conv()), X, Y)


def test_compile_mode() -> None:
    with pytest.raises(
        ValueError, match=r"compile must be True, False or one of .*'reduce-overhead'.*got 'fast'"
    ):
        fastdat.dat_step(Conv(), X, Y, compile="fast")


def test_arguments_of_the_discriminator() -> None:
    D, (xr, xf, args) = make("conditional"), batch("conditional")
    with pytest.raises(TypeError, match=r"args_real must be a tuple.*Tensor"):
        step(D, xr, xf, args_real=args["args_real"][0])
    with pytest.raises(ValueError, match=r"as many: got 1 and 0"):
        step(D, xr, xf, args_real=args["args_real"])
    with pytest.raises(TypeError, match=r"missing 1 required positional argument"):
        step(D, xr, xf)


@pytest.mark.parametrize("value", [lambda D, xr, xf: D(xr), lambda D, xr, xf: 1.0], ids=["vector", "float"])
def test_aux_loss(value: object) -> None:
    with pytest.raises(ValueError, match=r"aux_loss.*floating-point scalar tensor, got"):
        step(Conv(), X, Y, aux_loss=value)


def test_chained_parametrizations() -> None:
    class Twice(nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return 2 * w

    D = Conv(spectral_norm)
    parametrize.register_parametrization(D.conv1, "weight", Twice())
    with pytest.raises(NotImplementedError, match=r"'conv1.parametrizations.weight' chains spectral norm"):
        step(D, X, Y)
    step(Conv(weight_norm), X, Y)  # other parametrizations by themselves are no trouble


def test_a_failed_step_leaves_the_discriminator_whole() -> None:
    from torch.nn.utils import spectral_norm as hook_spectral_norm

    for norm in (spectral_norm, hook_spectral_norm):
        D = Conv(norm)
        D(X)
        before = {name: t.clone() for name, t in D.state_dict().items()}
        with pytest.raises(RuntimeError, match=r"channels"):
            step(D, X[:, :2], Y[:, :2])
        assert list(D.state_dict()) == list(before)
        torch.testing.assert_close(dict(D.state_dict()), before)
        D(X)
        assert not torch.equal(next(b for b in D.buffers()), next(iter(before.values())))
