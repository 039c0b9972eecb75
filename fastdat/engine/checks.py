"""Checks of what a user gives to a step. Each message says what was given, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastdat.engine.types import Batch

_WRAPPERS = {
    "DataParallel": "use torch.nn.parallel.DistributedDataParallel, one process a GPU",
    "FullyShardedDataParallel": "use torch.nn.parallel.DistributedDataParallel; D fits on one device",
    "FSDPModule": "use torch.nn.parallel.DistributedDataParallel; D fits on one device",
}


def check_discriminator(D: nn.Module) -> None:
    """Raises TypeError if D is not a module, NotImplementedError for a wrapper that a step cannot run."""
    if not isinstance(D, nn.Module):
        raise TypeError(f"D must be a torch.nn.Module, got {type(D).__name__}")
    for kind in type(D).__mro__:
        if kind.__name__ in _WRAPPERS:
            raise NotImplementedError(
                f"D wrapped in {kind.__name__} cannot be stepped: {_WRAPPERS[kind.__name__]}"
            )


def check_layers(modules: Mapping[str, nn.Module], world_size: int) -> None:
    """Raises NotImplementedError for layers that a step cannot run."""
    if world_size == 1:
        return
    for name, module in modules.items():
        if isinstance(module, nn.SyncBatchNorm) and module.training:
            raise NotImplementedError(
                f"D's layer '{name}' is a SyncBatchNorm in training mode, whose communication cannot be "
                "differentiated inside the step: use BatchNorm (per rank), another normalisation, or D.eval()"
            )


def check_tensors(batch: Batch) -> None:
    """Raises TypeError where the samples are no tensors, or D's further arguments no tuples."""
    for name, samples in (("xr", batch.xr), ("xf", batch.xf)):
        if not isinstance(samples, Tensor):
            raise TypeError(f"{name} must be a tensor (N, ...), got {type(samples).__name__}")
    for name, args in (("args_real", batch.args_real), ("args_fake", batch.args_fake)):
        if not isinstance(args, tuple):
            raise TypeError(f"{name} must be a tuple of D's further arguments, got {type(args).__name__}")
    if len(batch.args_real) != len(batch.args_fake):
        raise ValueError(
            f"args_real and args_fake must be as many: got {len(batch.args_real)} and {len(batch.args_fake)}. "
            "D is called as D(xr, *args_real) and D(xf, *args_fake)"
        )


def check_batch(batch: Batch, world_size: int) -> None:
    """Raises TypeError or ValueError for samples that D's step cannot use."""
    for name, samples in (("xr", batch.xr), ("xf", batch.xf)):
        if not samples.is_floating_point():
            raise TypeError(
                f"{name} must be floating point in the range of DATConfig.bounds, got {samples.dtype}: "
                "convert images with x.float() / 127.5 - 1"
            )
        if samples.dtype == torch.float16:
            raise TypeError(f"{name} is float16, whose range loses input gradients: use bfloat16 or float32")
    for what in ("shape", "dtype", "device"):
        real, fake = getattr(batch.xr, what), getattr(batch.xf, what)
        if real != fake:
            real, fake = (tuple(v) if what == "shape" else v for v in (real, fake))
            raise ValueError(
                f"xr and xf must have one {what}: got {real} and {fake}"
                + (" (drop the last, smaller batch: DataLoader(drop_last=True))" if what == "shape" else "")
            )
    if batch.xr.ndim < 1 or batch.xr.numel() == 0:
        raise ValueError(f"xr and xf must hold samples, got the empty shape {tuple(batch.xr.shape)}")
    if batch.xr.shape[0] * world_size < 2:
        raise ValueError(
            "a step needs at least 2 samples a side, since each side's mean is the other's target: got 1 "
            f"(shape {tuple(batch.xr.shape)})"
        )


def check_device(params: Mapping[str, Tensor], batch: Batch) -> None:
    """Raises ValueError where D and the samples are on different devices."""
    for name, p in params.items():
        if p.device != batch.xr.device:
            raise ValueError(
                f"D is on {p.device} ('{name}') and the samples on {batch.xr.device}: move one of them with .to(...)"
            )


def check_autocast(device: torch.device) -> None:
    """Raises TypeError under fp16 autocast, in which input gradients underflow without a loss scaler."""
    if torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.float16:
        raise TypeError(
            f"fp16 autocast: the attack's input gradients underflow. Use torch.autocast('{device.type}', "
            "dtype=torch.bfloat16)"
        )


def check_finite(batch: Batch) -> None:
    """Raises ValueError where a sample holds NaN or Inf. Synchronises with the device."""
    for name, samples in (("xr", batch.xr), ("xf", batch.xf)):
        bad = ~torch.isfinite(samples.detach())
        if bool(bad.any()):
            rows = bad.flatten(1).any(1) if samples.ndim > 1 else bad
            raise ValueError(
                f"{name} holds {int(bad.sum())} values that are NaN or Inf, in samples {rows.nonzero()[:8, 0].tolist()}"
                f"{' and more' if int(rows.sum()) > 8 else ''}: look at the data or at G's weights"
            )


def check_output(out: Any, batch: int) -> None:
    """Raises TypeError or ValueError where D's output has no logits of one value a sample."""
    logits = out[0] if isinstance(out, (tuple, list)) and out else out
    if not isinstance(logits, Tensor):
        raise TypeError(f"D must return logits, or a tuple with logits first, got {type(out).__name__}")
    if tuple(logits.shape) not in ((batch,), (batch, 1)) or not logits.is_floating_point():
        raise ValueError(
            f"D must return one raw logit a sample, shape ({batch},) or ({batch}, 1), got {logits.dtype} of shape "
            f"{tuple(logits.shape)}: take the mean over patches, or put the logits first in the output"
        )
    for i, extra in enumerate(out[1:] if isinstance(out, (tuple, list)) else (), start=1):
        if not isinstance(extra, Tensor):
            raise TypeError(f"D's further outputs must be tensors, but output {i} is {type(extra).__name__}")


def check_microbatch(microbatch: int | None, has_aux: bool) -> None:
    """Raises TypeError or ValueError for a micro-batch that cannot give the step of the whole batch."""
    if microbatch is None:
        return
    if isinstance(microbatch, bool) or not isinstance(microbatch, int):
        raise TypeError(f"microbatch must be an integer >= 1 (samples a side at a time), got {microbatch!r}")
    if microbatch < 1:
        raise ValueError(f"microbatch must be an integer >= 1 (samples a side at a time), got {microbatch!r}")
    if has_aux:
        raise ValueError(
            "microbatch with aux_loss: a loss of the whole batch cannot be split exactly. Call aux_loss(D, xr, xf) "
            "yourself and add it, or leave microbatch out"
        )


def check_splittable(modules: Mapping[str, nn.Module], independent: bool, moving: tuple[str, ...]) -> None:
    """Raises ValueError where a D that couples samples was to be run on parts of a batch."""
    if independent and not moving:
        return
    norms = [n for n, m in modules.items() if isinstance(m, nn.modules.batchnorm._NormBase) and m.training]
    cause = (
        f"its layers {', '.join(map(repr, norms[:4]))} normalise over the batch"
        if norms
        else (
            f"its buffers {', '.join(moving[:4])} follow the batch"
            if moving
            else "one sample's logit depends on others"
        )
    )
    raise ValueError(
        f"microbatch needs a D that treats its samples independently, but {cause}: parts of the batch would give "
        "another gradient. Use D.eval(), another normalisation, or no microbatch"
    )


def check_functions(names: Collection[str]) -> None:
    """Raises NotImplementedError where D calls autograd.Functions whose second derivative a graph would lose."""
    if names:
        raise NotImplementedError(
            f"D (or aux_loss) calls the autograd.Function {', '.join(names)}: torch.compile loses a part of its second "
            "derivative, so the gradient would be wrong with second_order=True. Call dat_step(..., compile=False), or "
            "write it with PyTorch's own operations"
        )
