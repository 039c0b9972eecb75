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

    def growth(self, now: Fixed) -> str | None:
        """What ``now`` has more, in words; None if it has nothing more."""
        known = {id(held.tensor) for held in self._held}
        return next((f"{held.name} is new" for held in now._held if id(held.tensor) not in known), None)


class GradientsError(RuntimeError):
    """Gradients that a graph adds to are no longer where they were."""


class Gradients:
    """The gradients that a graph writes, which it does not put into ``.grad`` by itself.

    Made before the graph is recorded; :meth:`hold` comes after it.

    Args:
        modules, optimizers: whose parameters have them.
    """

    def __init__(self, modules: Sequence[nn.Module] = (), optimizers: Sequence[Optimizer] = ()) -> None:
        of_groups = [p for o in optimizers for group in o.param_groups for p in group["params"]]
        of_modules = [p for module in modules for p in module.parameters()]
        self._before = [(p, p.grad) for p in {id(p): p for p in (*of_modules, *of_groups)}.values()]
        self._after: list[tuple[Tensor, Tensor | None, bool]] = []

    def hold(self) -> None:
        """Keep the gradients as they are now, after the recording."""
        self._after = [(p, p.grad, p.grad is not None and p.grad is before) for p, before in self._before]
        self._before = []

    def check(self) -> None:
        """Check that gradients which were there before, and which the graph adds to, are still there.

        Raises:
            GradientsError: one is not.
        """
        for parameter, grad, added_to in self._after:
            if added_to and parameter.grad is not grad:
                raise GradientsError(
                    f"the gradient of a parameter of shape {tuple(parameter.shape)} is another tensor than the one "
                    "that the captured graph adds to: call zero_grad inside of the function, or "
                    "zero_grad(set_to_none=False)"
                )

    def put_back(self) -> None:
        """Let each parameter have the gradient that the graph has written."""
        for parameter, grad, _ in self._after:
            parameter.grad = grad


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
                        raise ValueError(_not_on_device(name, f"on {value.device}", optimizer))
                    yield _held(name, partial(_in_state, optimizer, parameter, key), value)
                elif isinstance(value, (int, float)) and not isinstance(value, bool):
                    raise ValueError(_not_on_device(name, f"the Python number {value}", optimizer))


def _held(name: str, find: Callable[[], Any], tensor: Tensor) -> _Held:
    return _Held(name, find, tensor, tensor.data_ptr(), tensor.requires_grad)


def _in_module(module: nn.Module, kind: str, key: str) -> Any:
    return getattr(module, kind).get(key)


def _in_state(optimizer: Optimizer, parameter: Tensor, key: str) -> Any:
    """Not from a state that was found before: loading one makes a new one."""
    return optimizer.state[parameter].get(key) if parameter in optimizer.state else None


def _not_on_device(name: str, what: str, optimizer: Optimizer) -> str:
    return (
        f"{name} is {what}, which a replayed step would not advance: make the optimizer with {_cure(optimizer)}, so "
        "that its state lies on the device"
    )


def _cure(optimizer: Optimizer) -> str:
    return "fused=True" if "fused" in optimizer.defaults else "capturable=True"


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
                    f"can: make it with {_cure(optimizer)}"
                )
            found.append(group)
    return found


def devices_of(modules: Sequence[nn.Module]) -> Iterator[torch.device]:
    """Of all parameters and buffers."""
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            yield tensor.device
