"""What a captured graph has built in beside its inputs: where tensors lie, and the numbers of optimizers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class _Held(NamedTuple):
    """A tensor by name, as it was, and how it is found now."""

    name: str
    find: Callable[[], Any]
    tensor: Tensor
    address: int
    requires_grad: bool


class _Number(NamedTuple):
    """A setting of a group of parameters, as it was."""

    name: str
    group: int
    key: str
    value: Any


class Fixed:
    """Modules and optimizers as they are now.

    Args:
        modules: their parameters, buffers and modes.
        optimizers: their states and settings.

    Raises:
        ValueError: an optimizer keeps a number that a replayed step would not advance.
    """

    def __init__(self, modules: Sequence[nn.Module], optimizers: Sequence[Optimizer]) -> None:
        self._held = [*_of_modules(modules), *_of_states(optimizers)]
        self._modes = [
            (_path(i, name), module, module.training)
            for i, top in enumerate(modules)
            for name, module in top.named_modules()
        ]
        self._numbers = [(optimizer, [*_settings(i, optimizer)]) for i, optimizer in enumerate(optimizers)]

    def change(self) -> str | None:
        """What is no longer as it was, in words; None if all is."""
        for name, find, tensor, address, requires_grad in self._held:
            now = find()
            if now is not tensor:
                return f"{name} is another tensor"
            if now.data_ptr() != address:
                return f"{name} lies elsewhere in memory"
            if now.requires_grad != requires_grad:
                return f"{name}.requires_grad is {now.requires_grad}, and was {requires_grad}"
        for name, module, training in self._modes:
            if module.training != training:
                return f"{name}.training is {module.training}, and was {training}"
        for optimizer, numbers in self._numbers:
            groups = optimizer.param_groups  # looked up each time, since loading a state makes new groups
            for name, group, key, value in numbers:
                now = groups[group].get(key) if group < len(groups) else None
                if isinstance(value, Tensor):
                    if now is not value:
                        return f"{name} is another tensor, or a number"
                elif isinstance(now, Tensor) or now != value:
                    return f"{name} is {now}, and was {value}"
        return None


def _path(i: int, name: str) -> str:
    return f"modules[{i}]" + (f".{name}" if name else "")


def _of_modules(modules: Sequence[nn.Module]) -> Iterator[_Held]:
    for i, top in enumerate(modules):
        for path, module in top.named_modules():
            for kind in ("_parameters", "_buffers"):
                for key, tensor in getattr(module, kind).items():
                    if tensor is not None:
                        yield _held(f"{_path(i, path)}.{key}", partial(_in_module, module, kind, key), tensor)


def _of_states(optimizers: Sequence[Optimizer]) -> Iterator[_Held]:
    for i, optimizer in enumerate(optimizers):
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                name = f"optimizers[{i}]'s {key}"
                if isinstance(value, Tensor):
                    if value.device != parameter.device:
                        raise ValueError(_NOT_ON_DEVICE.format(name, f"on {value.device}"))
                    yield _held(name, partial(_in_state, optimizer, parameter, key), value)
                elif isinstance(value, (int, float)) and not isinstance(value, bool):
                    raise ValueError(_NOT_ON_DEVICE.format(name, f"the Python number {value}"))


def _held(name: str, find: Callable[[], Any], tensor: Tensor) -> _Held:
    return _Held(name, find, tensor, tensor.data_ptr(), tensor.requires_grad)


def _in_module(module: nn.Module, kind: str, key: str) -> Any:
    return getattr(module, kind).get(key)


def _in_state(optimizer: Optimizer, parameter: Tensor, key: str) -> Any:
    """Not from a state that was found before: loading one makes a new one."""
    return optimizer.state[parameter].get(key) if parameter in optimizer.state else None


_NOT_ON_DEVICE = (
    "{} is {}, which a replayed step would not advance: make the optimizer with fused=True (or capturable=True), so "
    "that its state lies on the device"
)


def _settings(i: int, optimizer: Optimizer) -> Iterator[_Number]:
    for j, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if key not in ("params", "capturable", "initial_lr"):
                yield _Number(f"optimizers[{i}].param_groups[{j}][{key!r}]", j, key, value)


def capturable(optimizers: Sequence[Optimizer]) -> list[dict[str, Any]]:
    """The groups of parameters to mark as capturable while their steps are captured.

    torch refuses to capture the step of an optimizer that is not marked, and warns where a marked one steps uncaptured.
    A fused step computes the same either way.

    Raises:
        ValueError: an optimizer would wait for the device in its step.
    """
    found = []
    for i, optimizer in enumerate(optimizers):
        for group in optimizer.param_groups:
            if group.get("capturable", True):
                continue
            if not group.get("fused"):
                raise ValueError(
                    f"optimizers[{i}], {type(optimizer).__name__}, waits for the device in each step, which no graph "
                    "can: make it with fused=True"
                )
            found.append(group)
    return found


def devices_of(modules: Sequence[nn.Module]) -> Iterator[torch.device]:
    """Of all parameters and buffers."""
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            yield tensor.device
