"""Checks of a step's samples and of D's further arguments. Each message says what to do."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fastdat.config import AttackConfig
from fastdat.engine.checks import named
from fastdat.engine.types import Batch
from fastdat.engine.value_range import range_problem

_LOGGER = logging.getLogger("fastdat")


def check_tensors(batch: Batch) -> None:
    """Raises TypeError or ValueError where the samples are no dense tensors, or D's further arguments no tuples.

    Every call comes by here: these are checks that the key of a prepared step does not make needless.
    """
    for name, samples in (("xr", batch.xr), ("xf", batch.xf)):
        if not isinstance(samples, Tensor):
            raise TypeError(
                f"{name} must be a tensor (N, ...), got {named(samples)}{_cure_of_samples(samples)}"
            )
        if samples.is_nested or samples.layout is not torch.strided:
            what, cure = (
                ("nested", "to_padded_tensor(0.0)") if samples.is_nested else (samples.layout, "to_dense()")
            )
            raise TypeError(
                f"{name} must be a dense tensor (N, ...), got a {what} one: convert it with .{cure}"
            )
    if batch.xr.is_meta:
        raise ValueError(
            "xr is on meta, where tensors have no values: make samples on a device, and move D with "
            "D.to_empty(device=...) and its initialisation"
        )
    if batch.xr is batch.xf:
        raise ValueError(
            "xr and xf are the same tensor: give real samples and fake samples, dat_step(D, xr, G(z).detach())"
        )
    for name, args in (("args_real", batch.args_real), ("args_fake", batch.args_fake)):
        if not isinstance(args, tuple):
            raise TypeError(
                f"{name} must be a tuple of D's further arguments, got {named(args)}: write {name}=(y,)"
            )
    if len(batch.args_real) != len(batch.args_fake):
        raise ValueError(
            f"args_real and args_fake must be as many: got {len(batch.args_real)} and {len(batch.args_fake)}. "
            "D is called as D(xr, *args_real) and D(xf, *args_fake)"
        )


def check_args(batch: Batch, gradients: bool) -> None:
    """Raises TypeError or ValueError for arguments of D that a step would not follow.

    Args:
        gradients: whether the step computes gradients.
    """
    for name, args in (("args_real", batch.args_real), ("args_fake", batch.args_fake)):
        for i, arg in enumerate(args):
            if isinstance(arg, Tensor):
                if arg.is_meta:
                    raise ValueError(
                        f"{name}[{i}] is on meta, where tensors have no values, and xr on {batch.xr.device}: make it "
                        "there"
                    )
                if gradients and arg.requires_grad:
                    raise ValueError(
                        f"{name}[{i}] requires a gradient, and a step gives one to D's parameters, xr and xf only: "
                        f"pass {name}[{i}].detach(), or compute it inside D"
                    )
            elif any(hasattr(leaf, "__array__") for leaf in tree_leaves(arg)):
                raise TypeError(
                    f"{name}[{i}] is a {type(arg).__name__} that holds arrays or tensors: give D's further arguments "
                    "as tensors, one by one, (y, z), and arrays with torch.from_numpy"
                )


def outside_inference(batch: Batch) -> Batch:
    """The batch with copies of tensors that were made under ``torch.inference_mode``, which autograd refuses."""
    args = (*batch.args_real, *batch.args_fake)
    if not (batch.xr.is_inference() or batch.xf.is_inference() or any(map(_is_of_inference, args))):
        return batch
    return Batch(
        batch.xr.clone(),
        batch.xf.clone(),
        tuple([arg.clone() if _is_of_inference(arg) else arg for arg in batch.args_real]),
        tuple([arg.clone() if _is_of_inference(arg) else arg for arg in batch.args_fake]),
    )


def _is_of_inference(arg: Any) -> bool:
    return isinstance(arg, Tensor) and arg.is_inference()


def _cure_of_samples(samples: object) -> str:
    if isinstance(samples, nn.Module):
        return ": the arguments are in another order, call dat_step(D, xr, xf)"
    if isinstance(samples, (list, tuple)):
        return ": for a batch of images and labels, give batch[0] here and the labels as args_real; or torch.stack(...)"
    return ": convert it with torch.as_tensor" if hasattr(samples, "__array__") else ""


_DTYPES = (torch.float32, torch.bfloat16, torch.float64)


def check_batch(batch: Batch, world_size: int) -> None:
    """Raises TypeError or ValueError for samples that D's step cannot use."""
    for name, samples in (("xr", batch.xr), ("xf", batch.xf)):
        if samples.dtype == torch.float16:
            raise TypeError(f"{name} is float16, whose range loses input gradients: use bfloat16 or float32")
        if samples.dtype not in _DTYPES:
            cure = "convert images with x.float() / 127.5 - 1"
            if samples.is_quantized:
                cure = "x.dequantize()"
            elif samples.is_complex():
                cure = "torch.view_as_real(x) makes real and imaginary parts of it"
            elif samples.is_floating_point():
                cure = "convert it with x.float()"
            raise TypeError(
                f"{name} must be floating point in the range of DATConfig.bounds (torch.float32, bfloat16, float64), "
                f"got {samples.dtype}: {cure}"
            )
    for what in ("shape", "dtype", "device"):
        real, fake = getattr(batch.xr, what), getattr(batch.xf, what)
        if real != fake:
            real, fake = (tuple(v) if what == "shape" else v for v in (real, fake))
            cure = {
                "shape": "drop the last, smaller batch: DataLoader(drop_last=True), or draw as many fakes",
                "dtype": "xf = xf.to(xr.dtype)",
                "device": "xr = xr.to(xf.device)",
            }[what]
            raise ValueError(f"xr and xf must have one {what}: got {real} and {fake} ({cure})")
    if batch.xr.ndim < 1 or batch.xr.numel() == 0:
        raise ValueError(
            f"xr and xf must hold samples, got the empty shape {tuple(batch.xr.shape)}: give at least 2 a side"
        )
    if batch.xr.shape[0] * world_size < 2:
        raise ValueError(
            "a step needs at least 2 samples a side, over which DAT and most losses take means: got 1 "
            f"(shape {tuple(batch.xr.shape)}). Add a dimension of samples with x[None] where it is missing, or use a "
            "larger batch"
        )


def check_values(batch: Batch, config: AttackConfig) -> None:
    """Raises ValueError where a sample holds NaN or Inf, or values outside ``config.bounds``. Synchronises once with
    the device where all is well."""
    ranges = _ranges(batch)
    if not all(math.isfinite(low) and math.isfinite(high) for low, high in ranges.values()):
        _check_finite("xr", batch.xr.detach())
        _check_finite("xf", batch.xf.detach())
    for name, ends in ranges.items():
        problem = _range_problem(name, ends, batch, config, generated=name == "xf")
        if problem is not None:
            raise ValueError(problem)


_SOME = 256
"""Values from which on it is no chance that none of a batch of reals is below 0."""


def tell_values(batch: Batch, config: AttackConfig) -> None:
    """Log a warning where samples lie outside ``config.bounds``, or reals seem to be images in [0, 1]: they would be
    clipped, or moved too little, without a word. Synchronises once with the device."""
    if config.bounds is None or torch.compiler.is_compiling():
        return
    for name, ends in _ranges(batch).items():
        any_sign = name == "xf" or batch.xr.numel() < _SOME
        problem = _range_problem(name, ends, batch, config, generated=any_sign)
        if problem is not None and all(map(math.isfinite, ends)):
            _LOGGER.warning("%s. This is said once for each D.", problem)


def _ranges(batch: Batch) -> dict[str, tuple[float, float]]:
    """The smallest and the largest value of each side."""
    ends = [end for x in (batch.xr, batch.xf) for end in torch.aminmax(x.detach())]
    low_real, high_real, low_fake, high_fake = torch.stack(ends).tolist()
    return {"xr": (low_real, high_real), "xf": (low_fake, high_fake)}


def _range_problem(
    name: str, ends: tuple[float, float], batch: Batch, config: AttackConfig, *, generated: bool
) -> str | None:
    tolerance = 4 * torch.finfo(batch.xr.dtype).eps
    return range_problem(name, *ends, config.bounds, tolerance, generated=generated)


def _check_finite(name: str, samples: Tensor) -> None:
    bad = ~torch.isfinite(samples)
    if bool(bad.any()):
        rows = bad.flatten(1).any(1) if samples.ndim > 1 else bad
        raise ValueError(
            f"{name} holds {int(bad.sum())} values that are NaN or Inf, in samples {rows.nonzero()[:8, 0].tolist()}"
            f"{' and more' if int(rows.sum()) > 8 else ''}: look at the data or at G's weights"
        )
