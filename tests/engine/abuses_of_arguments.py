"""Samples and options that dat_step cannot take as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import fastdat
from fastdat import DATConfig
from tests.engine.odd_discriminators import (
    OUTSIDE,
    Conditional,
    Fixed,
    Net,
    Scaled,
    Y,
    given,
    labelled,
    net,
    samples,
)

Abuse = tuple[Callable[[], dict[str, Any]], type[Exception], str]
"""Arguments of dat_step, the error, and what it says."""


def converted(function: Callable[[Tensor], Any], **options: Any) -> dict[str, Any]:
    return given(xr=function(samples()), xf=function(samples()), **options)


class Summed:
    """A loss with its mean inside."""

    def g1(self, t: Tensor) -> Tensor:
        return t.mean()

    def g2(self, t: Tensor) -> Tensor:
        return -t.mean()


class Lists:
    """A loss that cannot be hashed."""

    __hash__ = None
    g1 = Fixed.g1
    g2 = Fixed.g2


OF_ARGUMENTS: dict[str, Abuse] = {
    # --- samples
    "the same tensor twice": (
        lambda: (lambda x: given(xr=x, xf=x))(samples()),
        ValueError,
        r"xr and xf are the same tensor.*G\(z\).detach\(\)",
    ),
    "a batch of the loader": (
        lambda: given(xr=[samples(), Y]),
        TypeError,
        r"got list: .*batch\[0\].*args_real",
    ),
    "NumPy samples": (lambda: given(xr=np.zeros((4, 4))), TypeError, r"got ndarray: .*torch.as_tensor"),
    "G itself": (lambda: given(xf=lambda: None), TypeError, r"xf must be a tensor \(N, ...\), got function"),
    "bytes": (
        lambda: converted(Tensor.byte),
        TypeError,
        r"torch.uint8: convert images with x.float\(\) / 127.5",
    ),
    "bool": (lambda: converted(Tensor.bool), TypeError, r"got torch.bool: convert"),
    "half": (lambda: converted(Tensor.half), TypeError, r"float16.*use bfloat16 or float32"),
    "float8": (lambda: converted(lambda x: x.to(torch.float8_e4m3fn)), TypeError, r"float8.*x.float\(\)"),
    "complex": (lambda: converted(lambda x: x + 0j), TypeError, r"complex64: torch.view_as_real"),
    "quantised": (
        lambda: converted(lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)),
        TypeError,
        r"qint8: x.dequantize\(\)",
    ),
    "sparse": (lambda: converted(Tensor.to_sparse), TypeError, r"dense tensor.*sparse_coo.*\.to_dense\(\)"),
    "sparse after dense": (
        lambda: (lambda D: (fastdat.dat_step(**given(D)), converted(Tensor.to_sparse_csr, D=D))[1])(Net()),
        TypeError,
        r"sparse_csr.*to_dense",
    ),
    "nested": (
        lambda: converted(lambda x: torch.nested.nested_tensor([*x], layout=torch.jagged)),
        TypeError,
        r"got a nested one.*to_padded_tensor",
    ),
    "another number": (lambda: given(xf=samples(3)), ValueError, r"one shape.*\(3, 4\).*drop_last=True"),
    "another dtype": (lambda: given(xf=samples().double()), ValueError, r"one dtype.*xf = xf.to\(xr.dtype\)"),
    "another device": (
        lambda: given(xf=samples().to("meta")),
        ValueError,
        r"one device: got cpu and meta.*to\(",
    ),
    "one sample": (lambda: given(xr=samples(1), xf=samples(1)), ValueError, r"at least 2 samples.*x\[None\]"),
    "no samples": (lambda: given(xr=samples(0), xf=samples(0)), ValueError, r"hold samples.*at least 2"),
    "a scalar": (lambda: given(xr=torch.ones(()), xf=torch.ones(())), ValueError, r"empty shape \(\)"),
    "double to a float D": (
        lambda: converted(Tensor.double),
        ValueError,
        r"D is torch.float32 and failed on xr of torch.float64: .*x.to\(torch.float32\).*D.to\(torch.float64\)",
    ),
    "float to a double D": (
        lambda: given(Net().double()),
        ValueError,
        r"D is torch.float64.*xr of torch.float32",
    ),
    "bf16 to a float D": (
        lambda: converted(Tensor.bfloat16),
        ValueError,
        r"torch.bfloat16.*torch.autocast\('cpu'",
    ),
    "float to a bf16 D": (
        lambda: given(Net().bfloat16()),
        ValueError,
        r"D is torch.bfloat16.*x.to\(torch.bfloat",
    ),
    # --- further arguments of D
    "no labels": (lambda: given(Conditional()), TypeError, r"forward\(x: .*, y: .*args_real=\(y_real,\)"),
    "labels for no conditional D": (lambda: labelled(Y, D=Net()), TypeError, r"with 1 further argument"),
    "labels without a tuple": (
        lambda: given(Conditional(), args_real=Y, args_fake=Y),
        TypeError,
        r"args_real must be a tuple.*got Tensor: write args_real=\(y,\)",
    ),
    "labels of one side": (lambda: given(Conditional(), args_real=(Y,)), ValueError, r"as many: got 1 and 0"),
    "labels on another device": (
        lambda: labelled(Y.to("meta")),
        ValueError,
        r"args_real\[0\] is on meta.*xr on cpu: make it there",
    ),
    "fake labels on another device": (
        lambda: labelled(Y, Y.to("meta")),
        ValueError,
        r"args_fake\[0\] is on meta",
    ),
    "too many labels": (
        lambda: labelled(torch.randint(5, (6,)), torch.randint(5, (6,))),
        ValueError,
        r"args_real\[0\] of shape \(6,\) and xr of shape \(4, 4\): give one label a sample",
    ),
    "too few fake labels": (lambda: labelled(Y, Y[:3]), ValueError, r"args_fake\[0\] of shape \(3,\)"),
    "labels in an array": (lambda: labelled(Y.numpy(), Y.numpy()), TypeError, r"ndarray.*torch.from_numpy"),
    "labels in a dict": (
        lambda: labelled({"y": Y}, {"y": Y}),
        TypeError,
        r"args_real\[0\] is a dict.*one by one",
    ),
    "labels with a gradient": (
        lambda: labelled(torch.ones(4, 1, requires_grad=True), torch.ones(4, 1), Scaled()),
        ValueError,
        r"args_real\[0\] requires a gradient.*\.detach\(\)",
    ),
    # --- options
    "config is a dict": (
        lambda: given(config={"eps": 1}),
        TypeError,
        r"got dict: write DATConfig\(\*\*config\)",
    ),
    "config is the class": (lambda: given(config=DATConfig), TypeError, r"the? ?class itself|DATConfig\(\)"),
    "config is the loss": (lambda: given(config="gan"), TypeError, r"loss='gan'"),
    "config is a number": (
        lambda: given(config=3.0),
        TypeError,
        r"must be a fastdat.DATConfig, or .*, got float",
    ),
    "an unknown loss": (
        lambda: given(loss="Hinge-loss"),
        ValueError,
        r"did you mean 'hinge'\?.*choose one of",
    ),
    "a loss of PyTorch": (lambda: given(loss=nn.BCEWithLogitsLoss()), TypeError, r"g1 and g2.*BCEWith"),
    "a loss's class": (lambda: given(loss=Fixed), TypeError, r"class Fixed itself: make one, Fixed\(\)"),
    "a loss with its mean": (
        lambda: given(loss=Summed()),
        ValueError,
        r"Summed.g1 must give one value a logit.*mean",
    ),
    "a loss that cannot be hashed": (
        lambda: given(loss=Lists()),
        TypeError,
        r"must be hashable.*frozen dataclass",
    ),
    "a loss in a list": (lambda: given(loss=["gan"]), TypeError, r"loss must be one of hinge.*got list"),
    "aux_loss is a value": (
        lambda: given(aux_loss=torch.ones(())),
        TypeError,
        r"function \(D, xr, xf\).*added to",
    ),
    "aux_loss gives a vector": (
        lambda: given(aux_loss=lambda D, xr, xf: D(xr)),
        ValueError,
        r"scalar tensor, got torch.float32 of shape \(4, 1\): take its mean",
    ),
    "aux_loss gives a number": (
        lambda: given(aux_loss=lambda *_: 0.0),
        ValueError,
        r"scalar tensor, got float",
    ),
    "aux_loss with a parameter of its own": (
        lambda: given(aux_loss=lambda D, xr, xf: (D(xr) * OUTSIDE).mean()),
        ValueError,
        r"1 tensor\(s\).*no parameters of D.*a submodule.*detach",
    ),
    "aux_loss in parts": (
        lambda: given(aux_loss=lambda D, xr, xf: D(xr).mean(), microbatch=2),
        ValueError,
        r"microbatch with aux_loss",
    ),
    "compile=None": (
        lambda: given() | {"compile": None},
        TypeError,
        r"got None: compile=False is the eager step",
    ),
    "compile=3": (lambda: given() | {"compile": 3}, TypeError, r"compile must be True, False.*got 3"),
    "a list of modes": (lambda: given() | {"compile": ["default"]}, TypeError, r"got \['default'\]"),
    "an unknown mode": (
        lambda: given() | {"compile": "max-autotun"},
        ValueError,
        r"did you mean 'max-autotune",
    ),
    "fold=None": (lambda: given(fold=None), TypeError, r"fold must be True or False, got None"),
    "with_info='yes'": (lambda: given(with_info="yes"), TypeError, r"with_info must be True or False"),
    "microbatch=0": (lambda: given(microbatch=0), ValueError, r"microbatch must be an integer >= 1"),
    "microbatch='4'": (lambda: given(microbatch="4"), TypeError, r"microbatch must be an integer >= 1"),
    "microbatch in a list": (lambda: given(microbatch=[2]), TypeError, r"microbatch must be an integer >= 1"),
    "parts of a batch-normalised batch": (
        lambda: given(net(lambda h, norm: norm(h), nn.BatchNorm1d(6)), microbatch=2),
        ValueError,
        r"normalise over the batch.*evaluation mode",
    ),
    "fp16 autocast": (
        lambda: given() | {"within": torch.autocast("cpu", torch.float16)},
        TypeError,
        r"fp16 autocast.*bfloat16",
    ),
    # --- values, with check_finite=True
    "NaN": (
        lambda: given(xr=samples().log(), check_finite=True),
        ValueError,
        r"xr holds .* NaN or Inf.*the data",
    ),
    "Inf in the fakes": (
        lambda: given(xf=samples() / 0, check_finite=True),
        ValueError,
        r"xf holds.*G's weights",
    ),
    "images in [0, 1]": (
        lambda: given(xr=samples().abs(), check_finite=True),
        ValueError,
        r"xr has values in \[0\.\d+, 0\.\d+\], but DATConfig.bounds is \[-1, 1\].*x \* 2 - 1.*DATConfig.bounds",
    ),
    "images in 0..255": (
        lambda: given(xr=samples().abs() * 255, check_finite=True),
        ValueError,
        r"xr has values.*x / 127.5 - 1",
    ),
    "fakes out of bounds": (
        lambda: given(xf=samples() * 3, check_finite=True),
        ValueError,
        r"xf has values.*None for data without bounds",
    ),
    "reals out of bounds that are not clipped": (
        lambda: given(xr=samples() * 3, check_finite=True, config=DATConfig(clip_real=False)),
        ValueError,
        r"xr has values",
    ),
}
