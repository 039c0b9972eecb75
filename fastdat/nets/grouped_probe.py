"""Whether a net gives the same numbers when several batches share a pass, found by trying it on a copy.

A list of known layers would say nothing about a user's own net. So a copy of the net runs two batches in one pass, as
:class:`fastdat.nets.grouped_batch.InGroups` does, another runs one after the other, and everything is compared: random
numbers drawn, buffers, the outputs of every module. In float64 where the net allows it, so that rounding is no excuse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from fastdat.nets.deep_copy import deep_copy
from fastdat.nets.grouped_batch import InGroups, NotGroupedError, described

#: Allowed differences, in units of the largest value of a tensor. Samples that are joined differ by far more.
TOLERANCE = {True: 1e-9, False: 1e-4}  # by whether the copies are float64


class _Call(NamedTuple):
    """What is remembered of one call of a module: its tensors' fingerprints, and whether random numbers were drawn."""

    name: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    drew: bool


def check_in_groups(net: nn.Module, *example_inputs: Tensor) -> None:
    """Check that ``InGroups(net, ...)`` gives the numbers of separate passes.

    The net is tried in its present mode (training or evaluation). Neither the net nor the global random numbers change.

    Args:
        net: the net.
        example_inputs: what a pass takes, for example ``z, labels``; each (2 B, ...), two batches of at least 2
            samples. B = 3 is enough.

    Raises:
        NotGroupedError: the net cannot take several batches in one pass. The message names the module that joins the
            samples of a batch, or moves a buffer, or draws random numbers.
        ValueError: the example inputs are not two batches of at least 2 samples.
    """
    batches = _two_batches(example_inputs)
    InGroups(net, 2)  # what can be seen without running it
    failure: Exception | None = None
    for double in (True, False):
        try:
            problem = _problem(net, batches, double=double)
        except Exception as error:  # the net's own code may raise anything, for example because of float64
            failure = error
            continue
        if problem is not None:
            raise NotGroupedError(problem)
        return
    raise NotGroupedError(
        f"{type(net).__name__} cannot be tried: a copy of it fails on {len(example_inputs[0])} samples as two batches: "
        f"{type(failure).__name__}: {failure}"
    ) from failure


def _two_batches(inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    rows = {len(x) for x in inputs}
    if len(rows) != 1 or min(rows) < 4 or min(rows) % 2:
        raise ValueError(
            "example inputs must have the same even number of rows, at least 4 (two batches of two samples); got "
            f"shapes {', '.join(str(tuple(x.shape)) for x in inputs) or 'of no inputs'}"
        )
    halves = [x.chunk(2) for x in inputs]
    return tuple(half[0] for half in halves), tuple(half[1] for half in halves)


def _problem(net: nn.Module, batches: tuple[tuple[Tensor, ...], ...], *, double: bool) -> str | None:
    """Why the net cannot take several batches in one pass, in words; None if it can."""
    first, second = ([x.double() if double and x.is_floating_point() else x for x in b] for b in batches)
    both = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    tolerance = TOLERANCE[double]
    devices = sorted({x.get_device() for x in both if x.is_cuda})
    with torch.random.fork_rng(devices), torch.no_grad(), torch.autocast(both[0].device.type, enabled=False):
        separate, together = (_lively_copy(net, double) for _ in range(2))
        before = {name: buffer.clone() for name, buffer in separate.named_buffers()}
        calls_a, calls_b = (_calls(separate, separate, batch) for batch in (first, second))
        grouped = InGroups(together, 2)
        calls = _calls(grouped.view, grouped, both)
    return (
        _random(separate, calls_a)
        or _moving(separate, before)
        or _joining(together, calls, calls_a, calls_b, tolerance)
        or _ending_elsewhere(together, separate, tolerance)
    )


def _lively_copy(net: nn.Module, double: bool) -> nn.Module:
    """A copy of the net in which no parameter is zero: a zero gain would hide what stands before it."""
    copied = deep_copy(net)
    if double:
        copied.double()
    for parameter in copied.parameters():
        # No random numbers: two copies must be equal, and those of the process belong to the caller.
        ramp = torch.linspace(0.01, 0.1, parameter.numel(), dtype=parameter.dtype, device=parameter.device)
        parameter.copy_(torch.where(parameter == 0, ramp.view_as(parameter), parameter))
    return copied


def _calls(net: nn.Module, run: Callable[..., Any], inputs: list[Tensor]) -> list[_Call]:
    """Every call of a module in ``run(*inputs)``, in the order in which they end."""
    devices = sorted({x.get_device() for x in inputs if x.is_cuda})
    calls: list[_Call] = []
    started: list[list[Tensor]] = []  # states of the random generators when the calls now under way began

    def states() -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]

    def start(module: nn.Module, args: Any) -> None:
        started.append(states())

    def end(name: str) -> Callable[[nn.Module, Any, Any, Any], None]:
        def record(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            drew = not all(map(torch.equal, started.pop(), states()))
            calls.append(_Call(name, _fingerprints((args, kwargs)), _fingerprints(output), drew))

        return record

    handles = []
    for name, module in net.named_modules():
        handles += [
            module.register_forward_pre_hook(start),
            module.register_forward_hook(end(name), with_kwargs=True),
        ]
    try:
        run(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _fingerprints(values: Any) -> list[Tensor]:
    """Of every tensor (N, ...) in a tree of values: (N, 2), each row's product with a fixed vector and its norm.

    Whole tensors would fill the memory; two rows that differ have the same product by accident only.
    """
    prints = []
    for value in tree_leaves(values):
        if isinstance(value, Tensor):
            rows = value.detach().double().reshape(len(value) if value.dim() else 1, -1)
            vector = torch.arange(1.0, 1 + rows.shape[1], dtype=rows.dtype, device=rows.device).cos()
            prints.append(torch.stack([rows @ vector, rows.norm(dim=1)], 1))
    return prints


def _random(net: nn.Module, calls: list[_Call]) -> str | None:
    """Names the innermost module that draws random numbers."""
    for call in calls:
        if call.drew:
            return (
                f"{described(net, call.name, net.get_submodule(call.name))} draws random numbers in its forward pass, "
                "and one pass over all batches draws others than a pass for each: draw them outside and pass them as "
                "inputs"
            )
    return None


def _moving(net: nn.Module, before: dict[str, Tensor]) -> str | None:
    """Names a buffer that moves and is none of a batch norm's."""
    norms = [norm for norm in net.modules() if isinstance(norm, _BatchNorm)]
    allowed = {id(buffer) for norm in norms for buffer in norm.buffers(recurse=False)}
    for name, buffer in net.named_buffers():
        if id(buffer) not in allowed and not torch.equal(buffer, before[name]):
            return (
                f"buffer {name!r} of {type(net).__name__} moves in each forward pass, as those of spectral norm do in "
                "training mode: one pass over all batches would move it once"
            )
    return None


def _joining(
    net: nn.Module, together: list[_Call], first: list[_Call], second: list[_Call], tolerance: float
) -> str | None:
    """Names the innermost module whose outputs differ while its inputs agree."""
    if (
        not [call.name for call in together]
        == [call.name for call in first]
        == [call.name for call in second]
    ):
        return (
            f"{type(net).__name__} calls other modules in one pass over two batches than in a pass for each"
        )
    for both, a, b in zip(together, first, second, strict=True):
        is_net = not both.name
        inputs_agree = _agree(both.inputs, a.inputs, b.inputs, tolerance)
        if inputs_agree and not _agree(both.outputs, a.outputs, b.outputs, tolerance, per_sample=is_net):
            module = net.get_submodule(both.name)
            what = described(net, both.name, module)
            if isinstance(module, _BatchNorm):
                return (
                    f"{what} has a forward of its own that does not call that of torch's batch norm (super().forward), "
                    "where the batches are taken apart"
                )
            return f"{what} joins the samples of a batch: its outputs change when another batch is in the same pass"
    return None


def _ending_elsewhere(together: nn.Module, separate: nn.Module, tolerance: float) -> str | None:
    """Names a buffer that differs after the passes."""
    for (name, one), other in zip(together.named_buffers(), separate.buffers(), strict=True):
        if not _close(one.double(), other.double(), tolerance):
            return f"buffer {name!r} of {type(together).__name__} ends elsewhere than after a pass for each batch"
    return None


def _agree(
    both: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    tolerance: float,
    *,
    per_sample: bool = False,
) -> bool:
    """Whether the rows of one pass are those of both passes. A tensor that is the same in every pass, for example a
    weight, agrees too, unless ``per_sample``."""
    if not len(both) == len(first) == len(second):
        return False
    for rows, a, b in zip(both, first, second, strict=True):
        same_in_all = not per_sample and _close(rows, a, tolerance) and _close(rows, b, tolerance)
        if not same_in_all and not _close(rows, torch.cat([a, b]), tolerance):
            return False
    return True


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a.shape != b.shape or not a.numel():
        return a.shape == b.shape
    return bool((a - b).abs().max() <= tolerance * b.abs().max())
