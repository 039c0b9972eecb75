"""Layers that join the samples of a batch, where the batch lies on several ranks of ``torch.distributed``.

Batch norm takes its statistics from all samples of a batch, InfoNCE compares each image with all others, and SSGAN
rotates a quarter of the batch each way. Where each rank holds a part of the batch, they would look at that part alone,
and training on N ranks would not be training on one. :func:`share_batch` lets them look at the parts of all ranks.

Unlike those of ``torch.nn.SyncBatchNorm``, the exchanges are differentiable any number of times, as the attack of DAT
and its second order need, work on CPUs (gloo) and GPUs (nccl), and are compiled with the step.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

#: Its name is another one since torch 2.13.
_all_gather = getattr(collectives, "all_gather_single", None) or collectives.all_gather_tensor


class Shared(NamedTuple):
    """How a batch lies on ranks: rank r has its r-th of ``size`` equal parts."""

    group: Any
    """Name of the process group."""
    rank: int
    size: int


ALONE = Shared("", 0, 1)
"""A batch that lies on one rank as a whole."""


@runtime_checkable
class JoinsSamples(Protocol):
    """A module other than a batch norm whose output for one sample depends on the whole batch."""

    shared: Shared
    """:data:`ALONE` at first; :func:`share_batch` sets it."""


def share_batch(net: nn.Module, group: dist.ProcessGroup | None = None) -> nn.Module:
    """Let the batch norms of ``net``, and its modules that are :class:`JoinsSamples`, see the batch of all ranks.

    Every rank must run the same passes in the same order, with as many samples. Parameters, buffers and their names
    stay. Statistics of ``torch.nn.SyncBatchNorm`` become exchanges that can be differentiated twice, too. With one rank
    nothing changes.

    Args:
        net: changed in place.
        group: the ranks; all of them by default.

    Returns:
        ``net``.

    Raises:
        ValueError: torch.distributed is not initialized.
    """
    group = group or dist.group.WORLD
    if group is None:
        raise ValueError("share_batch: torch.distributed is not initialized; call init_process_group first")
    size = dist.get_world_size(group)
    if size == 1:
        return net
    shared = Shared(group.group_name, dist.get_rank(group), size)
    for module in net.modules():
        if isinstance(module, _SharedStatistics):
            module.shared = shared
        elif isinstance(module, _BatchNorm):
            module.__class__ = _shared_class(type(module))
            module.shared = shared  # type: ignore[assignment]
        elif isinstance(getattr(module, "shared", None), Shared):
            assert isinstance(module, JoinsSamples)
            module.shared = shared
    return net


def all_rows(x: Tensor, shared: Shared) -> Tensor:
    """The rows (N, ...) of all ranks as one tensor (size * N, ...), by rank; differentiable."""
    if shared.size == 1:
        return x
    rows: Tensor = _Gathered.apply(x, shared)  # type: ignore[no-untyped-call]
    return rows


class _Gathered(torch.autograd.Function):
    """The rows of all ranks, by rank. What all ranks' losses have to do with this rank's rows is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shared: Shared) -> Tensor:
        ctx.shared, ctx.rows = shared, x.shape[0]
        rows: Tensor = collectives.wait_tensor(_all_gather(x.contiguous(), 0, shared.group))
        return rows

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        summed: Tensor = _Summed.apply(gradient, ctx.shared)  # type: ignore[no-untyped-call]
        return summed.narrow(0, ctx.shared.rank * ctx.rows, ctx.rows), None


class _Summed(torch.autograd.Function):
    """The sum over all ranks, which is its own transpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shared: Shared) -> Tensor:
        ctx.shared = shared
        summed: Tensor = collectives.wait_tensor(collectives.all_reduce(x.contiguous(), "sum", shared.group))
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        summed: Tensor = _Summed.apply(gradient, ctx.shared)  # type: ignore[no-untyped-call]
        return summed, None


class _SharedStatistics(_BatchNorm):
    """The forward pass of a batch norm with the statistics of all ranks.

    It stands behind the class of the norm in the order of base classes, and before ``_BatchNorm``. So a subclass of
    ``nn.BatchNorm2d`` that calls ``super().forward``, for example a conditional norm, comes here too.
    """

    shared: Shared
    only_writes_statistics = True
    """In training its output does not depend on its buffers, as the engine knows of torch's own norms."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Of SyncBatchNorm, which takes any number of dimensions; other norms have a check of their own."""
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions (N, C, ...), got {tuple(input.shape)}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (_of_class(type(self)), self.__dict__)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:  # one rank may evaluate a net alone
            plain: Tensor = super().forward(input)
            return plain
        self._check_input_dim(input)
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        over = [0, *range(2, input.dim())]
        var, mean = torch.var_mean(wide, over, correction=0)
        # One exchange. The variance of the whole is the mean of the parts' and the variance of their means (Chan et
        # al. 1983), which loses no digits as a difference of squares would.
        means, variances = all_rows(torch.stack([mean, var])[None], self.shared).unbind(1)  # (size, C) each
        mean = means.mean(0)
        var = (variances + (means - mean).square()).mean(0)
        count = input.numel() // input.shape[1] * self.shared.size  # values of a channel on all ranks
        if count == 1:
            raise ValueError(
                f"a batch norm in training needs more than one value a channel; got an input of {tuple(input.shape)}"
            )
        if self.training and self.track_running_stats:
            self._move_running(mean.detach(), var.detach() * (count / (count - 1)))
        channels = (1, -1, *[1] * (input.dim() - 2))
        scale = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        out = (wide - mean.view(channels)) * scale.view(channels)
        if self.bias is not None:
            out = out + self.bias.view(channels)
        return out.to(input.dtype)

    @torch.no_grad()
    def _move_running(self, mean: Tensor, var: Tensor) -> None:
        """One update with the mean and the unbiased variance (C,) of the batch."""
        assert self.running_mean is not None
        assert self.running_var is not None
        weight: Tensor | float = 1.0 if self.momentum is None else self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # the mean over all batches so far
                weight = 1 / self.num_batches_tracked.to(mean.dtype)
        for running, of_batch in ((self.running_mean, mean), (self.running_var, var)):
            running.copy_(torch.lerp(running.to(of_batch.dtype), of_batch, weight))


def _of_class(shared: type) -> type[_BatchNorm]:
    """The class that a class of shared norms was made from."""
    return next(norm for norm, made in _CLASSES.items() if made is shared)


def _unpickled(norm: type[_BatchNorm], content: dict[str, Any]) -> nn.Module:
    """A norm of this class that shares its batch. Pickle would not find the class that was made for it."""
    made: nn.Module = object.__new__(_shared_class(norm))
    made.__dict__.update(content)
    return made


_CLASSES: dict[type, type[_BatchNorm]] = {}
"""By class of the norm: a new class each time would make torch.compile start anew."""


def _shared_class(norm: type[_BatchNorm]) -> type[_BatchNorm]:
    if norm not in _CLASSES:
        # torch's SyncBatchNorm has an exchange of its own in its forward pass, which this one takes the place of.
        bases = (_SharedStatistics,) if issubclass(norm, nn.SyncBatchNorm) else (norm, _SharedStatistics)
        _CLASSES[norm] = type(f"Shared{norm.__name__}", bases, {})
    return _CLASSES[norm]
