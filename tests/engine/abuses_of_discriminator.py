"""Discriminators that cannot be stepped as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import fastdat
from fastdat import DATConfig
from tests.engine.odd_discriminators import (
    PLAIN,
    HiddenLayers,
    Net,
    Scaled,
    UnderInference,
    UnderNoGrad,
    after,
    before,
    given,
    labelled,
    net,
    of_inference,
    samples,
    scripted,
    traced,
)

Abuse = tuple[Callable[[], dict[str, Any]], type[Exception], str]
"""Arguments of dat_step, the error, and what it says."""


def changed_by(D: nn.Module) -> nn.Module:
    """D that has been stepped once, and whose forward then changes its input."""
    fastdat.dat_step(D, samples(), samples(), compile=False)
    D.register_forward_pre_hook(lambda module, x: (x[0].mul_(0.5),))
    return D


def raises(x: Tensor) -> Tensor:
    raise LookupError("of the user")


def wrote_numpy(x: Tensor) -> Tensor:
    x.detach().numpy()[:] = 0
    return x


OF_DISCRIMINATOR: dict[str, Abuse] = {
    # --- D
    "D is a function": (lambda: given(lambda x: x), TypeError, r"got function: wrap a function in a Module"),
    "D is a class": (lambda: given(Net), TypeError, r"the class Net itself: make one, Net\(...\)"),
    "D and xr swapped": (lambda: given(samples(), Net()), TypeError, r"got Tensor: .*dat_step\(D, xr, xf\)"),
    "xr and D swapped, G last": (lambda: given(xf=Net()), TypeError, r"xf must be a tensor.*dat_step\(D, xr"),
    "D in DataParallel": (lambda: given(nn.DataParallel(Net())), NotImplementedError, r"DistributedData"),
    "D in DataParallel in torch.compile": (
        lambda: given(torch.compile(nn.DataParallel(Net()))),
        NotImplementedError,
        r"DataParallel cannot be stepped",
    ),
    "D is scripted": (lambda: given(scripted(Net())), NotImplementedError, r"the module that it was made"),
    "D is traced": (lambda: given(traced(Net(), samples())), NotImplementedError, r"ScriptModule"),
    "D on meta": (lambda: given(Net().to("meta")), ValueError, r"D is on meta.*samples on cpu.*\.to\("),
    "all on meta": (
        lambda: given(Net().to("meta"), samples().to("meta"), samples().to("meta")),
        ValueError,
        r"xr is on meta, where tensors have no values.*to_empty",
    ),
    "lazy layers": (
        lambda: given(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1))),
        ValueError,
        r"'0.weight' has no shape yet.*call D once on a batch",
    ),
    "D made in inference mode": (
        lambda: given(of_inference(Net)),
        ValueError,
        r"'a.weight' was made under torch.inference_mode.*make D outside",
    ),
    "detached logits": (lambda: given(after(Tensor.detach)), ValueError, r"neither its parameters.*\.detach"),
    "no_grad in D": (lambda: given(UnderNoGrad()), ValueError, r"neither.*torch.no_grad\(\)"),
    "inference mode in D": (lambda: given(UnderInference()), ValueError, r"neither.*inference_mode"),
    "constant logits": (
        lambda: given(after(lambda t: torch.zeros_like(t))),
        ValueError,
        r"neither its parameters nor its input",
    ),
    "NumPy in D": (
        lambda: given(after(lambda t: torch.from_numpy(t.detach().numpy()))),
        ValueError,
        r"neither.*leaves PyTorch.*numpy",
    ),
    "detached input": (
        lambda: given(before(Tensor.detach)),
        ValueError,
        r"not depend on its input.*real=False",
    ),
    "detached input, in parts": (
        lambda: given(before(Tensor.detach), microbatch=2),
        ValueError,
        r"not depend on its input",
    ),
    "detached input, reals attacked": (
        lambda: given(before(Tensor.detach), config=DATConfig(fake=False)),
        ValueError,
        r"the attack has no direction",
    ),
    "sign as an activation of the input": (
        lambda: given(before(lambda x: x.gt(0).to(x.dtype))),
        ValueError,
        r"do not depend on its input",
    ),
    "hidden layers": (
        lambda: given(HiddenLayers()),
        ValueError,
        r"2 tensor\(s\).*\(6, 6\), \(6,\).*ModuleList",
    ),
    "a layer made in forward": (
        lambda: given(net(lambda h: nn.Linear(6, 6)(h))),
        ValueError,
        r"no parameters of D.*Register them",
    ),
    "reentrant checkpoint": (
        lambda: given(net(lambda h: checkpoint(torch.sin, h, use_reentrant=True))),
        NotImplementedError,
        r"use_reentrant=False",
    ),
    "D raises": (lambda: given(before(raises)), LookupError, r"^of the user$"),
    "D has a bug": (lambda: given(net(lambda h: h @ h)), RuntimeError, r"^mat1 and mat2 shapes"),
    # --- in place
    "in place": (
        lambda: given(before(lambda x: x.mul_(0.5))),
        ValueError,
        r"D changes its input in place.*x \* 2",
    ),
    "in place without an effect": (lambda: given(before(lambda x: x.clamp_(-5, 5))), ValueError, r"in place"),
    "in place on a view": (
        lambda: given(before(lambda x: x.view(-1).add_(1).view(x.shape))),
        ValueError,
        r"clone",
    ),
    "in place by index": (
        lambda: given(before(lambda x: x.index_fill_(1, torch.tensor([0]), 0.0))),
        ValueError,
        r"in place.*makes a new tensor",
    ),
    "in place, data": (
        lambda: given(before(lambda x: x.data.mul_(2) * x)),
        ValueError,
        r"D changes its input",
    ),
    "in place, NumPy": (lambda: given(before(wrote_numpy)), ValueError, r"D changes its input in place"),
    "in place in a first layer": (
        lambda: given(nn.Sequential(nn.LeakyReLU(0.2, inplace=True), nn.Linear(4, 1))),
        ValueError,
        r"no inplace=True in a first layer",
    ),
    "in place, no attack": (
        lambda: given(before(lambda x: x.mul_(0.5)), config=PLAIN),
        ValueError,
        r"in place",
    ),
    "in place by aux_loss": (
        lambda: given(aux_loss=lambda D, xr, xf: D(xf.mul_(2)).mean()),
        ValueError,
        r"aux_loss changes its input in place.*clone",
    ),
    "in place on labels": (
        lambda: labelled(
            torch.ones(4, 1),
            torch.ones(4, 1),
            type(
                "S", (Scaled,), {"forward": lambda self, x, scale: Scaled.forward(self, x, scale.mul_(2))}
            )(),
        ),
        ValueError,
        r"samples or labels",
    ),
    "in place since a later call": (
        lambda: given(changed_by(Net())),
        ValueError,
        r"D changes its input in place",
    ),
    # --- outputs of D
    "patch logits": (lambda: given(after(lambda t: t.expand(-1, 3))), ValueError, r"\(4, 3\): take the mean"),
    "one logit for all": (
        lambda: given(after(torch.mean)),
        ValueError,
        r"one raw logit a sample.*shape \(\)",
    ),
    "a dict": (lambda: given(after(lambda t: {"logits": t})), TypeError, r"got dict: wrap D in a Module"),
    "nothing": (lambda: given(after(lambda t: None)), TypeError, r"got NoneType: its forward lacks a return"),
    "labels of classes": (lambda: given(after(Tensor.long)), ValueError, r"one raw logit.*torch.int64"),
    "complex logits": (lambda: given(after(lambda t: t + 0j)), ValueError, r"one raw logit.*complex64"),
    "nested outputs": (
        lambda: given(after(lambda t: (t, [t, t]))),
        TypeError,
        r"output 1 is list: leave it out, or return its tensors",
    ),
}
