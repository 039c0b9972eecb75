"""Several batches in one pass of a net, with the numbers of one pass after another.

While D takes its ``n_dis`` steps, G does not change. So G can make the fakes of all of them in one pass over
``n_dis * B`` latents, which keeps a machine busier than ``n_dis`` passes over B. Only batch norm sees the difference:
in training its statistics must be those of each batch of B, and its running statistics must move once a batch, in
order.

:class:`InGroups` does that with a view of the net. In a view each batch norm is replaced by one that takes the batches
apart, and all else is the net's own: its parameters, its buffers, and every module that holds no batch norm. Nothing is
copied, so the optimizer's updates and a loaded checkpoint are seen. :mod:`fastdat.nets.grouped_probe` tells whether a
net gives the same numbers in a view; a net with other layers that join the samples of a batch does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class NotGroupedError(ValueError):
    """A net cannot take several batches in one pass; the message says which module is the cause, and why."""


class InGroups:
    """Runs ``net`` on ``groups`` batches in one pass: inputs (groups * B, ...) -> outputs (groups * B, ...).

    Rows ``g * B`` to ``(g + 1) * B - 1`` of every input are batch ``g``. Outputs and buffers are those of ``groups``
    calls of ``net`` in this order, up to rounding. Every change of ``net`` is seen in the next call: its mode (training
    or evaluation), its tensors, its attributes and its modules. Whatever a forward pass assigns to attributes of a
    module that holds batch norms is dropped.

    Use :func:`fastdat.nets.grouped_probe.check_in_groups` first: a net is not checked here beyond what can be seen
    without running it.

    Args:
        net: the net; it is not changed.
        groups: number of batches, at least 1.
        compiler: what is called instead of the view, made from it; for example
            ``lambda view: torch.compile(view, options=options)``. It is called again when modules of ``net`` change.

    Raises:
        ValueError: fewer than one group; in a call, an input whose rows cannot be divided into the groups.
        NotGroupedError: a batch norm averages over all batches so far (``momentum=None``), which reads a counter back
            from the device; a module's ``forward`` was replaced in the instance; or ``net`` is compiled already.
    """

    def __init__(
        self,
        net: nn.Module,
        groups: int,
        *,
        compiler: Callable[[nn.Module], Callable[..., Any]] | None = None,
    ) -> None:
        if groups < 1:
            raise ValueError(f"groups must be at least 1; got groups={groups!r}")
        self.net, self.groups = net, groups
        self._compiler = compiler
        self._build()

    def __call__(self, *inputs: Tensor) -> Any:
        for i, rows in enumerate(map(len, inputs)):
            if rows % self.groups:
                raise ValueError(
                    f"input {i} has {rows} rows, which are not {self.groups} batches of one size: pass a multiple of "
                    f"{self.groups} rows"
                )
        self._follow()
        return self._run(*inputs)

    def _build(self) -> None:
        _require_groupable(self.net)
        self._structure = _structure(self.net)
        views: dict[int, nn.Module] = {}
        self.view = _view(self.net, self.groups, views)
        self._holders = [
            (module, views[id(module)]) for module in self.net.modules() if _is_holder(module, views)
        ]
        self._run = self.view if self._compiler is None else self._compiler(self.view)

    def _follow(self) -> None:
        """Bring the view up to date. Few modules have a dictionary of their own here, so this takes microseconds."""
        if _structure(self.net) != self._structure:
            self._build()
        for module, view in self._holders:
            _copy_attributes(module, view)


class _GroupedStatistics(_BatchNorm):
    """The forward pass of a batch norm with statistics per group. Subclasses set ``groups``.

    It stands behind the class of the norm in the order of base classes, and before ``_BatchNorm``. So a subclass of
    ``nn.BatchNorm2d`` that calls ``super().forward``, for example a conditional norm, comes here too.
    """

    groups: int

    def forward(self, input: Tensor) -> Tensor:
        evaluates = not self.training and self.running_mean is not None
        if self.groups == 1 or evaluates:
            plain: Tensor = super().forward(input)
            return plain
        if torch.compiler.is_compiling():
            self._check_input_dim(input)  # type: ignore[no-untyped-call]
            return self._at_once(input)
        # Eagerly, PyTorch's own kernel on each batch is ten times faster than `var_mean` (CPU), and exact in every bit.
        of_one: Callable[[Tensor], Tensor] = super().forward
        return torch.cat([of_one(batch) for batch in input.unflatten(0, (self.groups, -1)).unbind()])

    def _at_once(self, input: Tensor) -> Tensor:
        """The same in few kernels when compiled: one for the statistics, one for all that follows."""
        batches = input.unflatten(0, (self.groups, -1))  # (groups, B, C, ...)
        over = [1, *range(3, batches.dim())]
        count = input.numel() // (self.groups * batches.shape[2])  # values of a channel in a batch
        if count == 1:
            raise ValueError(
                f"a batch norm in training needs more than one value a channel in each batch; got {self.groups} "
                f"batches in an input of shape {tuple(input.shape)}"
            )
        wide = batches.to(torch.promote_types(batches.dtype, torch.float32))
        var, mean = torch.var_mean(wide, over, correction=0, keepdim=True)
        if self.training and self.track_running_stats:
            self._move_running(mean.view(self.groups, -1), var.view(self.groups, -1) * (count / (count - 1)))
        out = (wide - mean) * torch.rsqrt(var + self.eps)
        channels = (1, 1, -1, *[1] * (batches.dim() - 3))
        if self.weight is not None:
            out = out * self.weight.view(channels)
        if self.bias is not None:
            out = out + self.bias.view(channels)
        joined: Tensor = out.to(input.dtype).flatten(0, 1)
        return joined

    def _move_running(self, means: Tensor, variances: Tensor) -> None:
        """One update a batch, in order, with the means and unbiased variances of the batches, each (groups, C)."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        with torch.no_grad():
            for running, of_batches in ((self.running_mean, means), (self.running_var, variances)):
                moved = running.to(of_batches.dtype)
                for of_batch in of_batches:
                    moved = torch.lerp(moved, of_batch, self.momentum)
                running.copy_(moved)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(self.groups)


_CLASSES: dict[tuple[type, int], type[nn.Module]] = {}
"""By class of the norm and groups: a new class each time would make torch.compile start anew."""


def _grouped_class(norm: type[nn.Module], groups: int) -> type[nn.Module]:
    if (norm, groups) not in _CLASSES:
        _CLASSES[norm, groups] = type(
            f"Grouped{norm.__name__}", (norm, _GroupedStatistics), {"groups": groups}
        )
    return _CLASSES[norm, groups]


def _view(module: nn.Module, groups: int, views: dict[int, nn.Module]) -> nn.Module:
    """The module itself if no batch norm is in it, else its view; ``views`` has those made so far by id."""
    if id(module) in views:
        return views[id(module)]
    if isinstance(module, _BatchNorm):
        view = _new(_grouped_class(type(module), groups))
        view.__dict__ = module.__dict__  # one dictionary: mode, tensors and settings are the norm's, always
        views[id(module)] = view
    elif any(isinstance(part, _BatchNorm) for part in module.modules()):
        view = views[id(module)] = _new(type(module))
        children = {
            name: None if child is None else _view(child, groups, views)
            for name, child in module._modules.items()
        }
        view.__dict__ = {"_modules": children}
        _copy_attributes(module, view)
    else:
        view = views[id(module)] = module
    return view


def _new(kind: type[nn.Module]) -> nn.Module:
    """An object of this class without a dictionary yet: ``__init__`` would draw weights."""
    view: nn.Module = object.__new__(kind)
    return view


def _is_holder(module: nn.Module, views: dict[int, nn.Module]) -> bool:
    """Whether the module has a view with a dictionary of its own."""
    view = views.get(id(module), module)
    return view.__dict__ is not module.__dict__


#: Attributes that a view does not take from its module. The second one is a compiled call of the module itself.
_OWN = {"_modules", "_compiled_call_impl"}


def _copy_attributes(module: nn.Module, view: nn.Module) -> None:
    """Give the view the module's attributes. Its dictionaries of parameters, buffers and hooks become shared ones."""
    theirs, ours = module.__dict__, view.__dict__
    missing = object()
    # Only what differs is written: torch.compile checks a module anew whose dictionary was written to.
    for name, value in theirs.items():
        if name not in _OWN and ours.get(name, missing) is not value:
            ours[name] = value
    for name in ours.keys() - theirs.keys() - _OWN:
        del ours[name]


def _structure(net: nn.Module) -> list[tuple[str, int, type]]:
    """What a view is built from: every module's name, identity and class."""
    return [(name, id(module), type(module)) for name, module in net.named_modules(remove_duplicate=False)]


def _require_groupable(net: nn.Module) -> None:
    """Raises NotGroupedError for what can be seen without running the net."""
    for name, module in net.named_modules():
        what = described(net, name, module)
        if isinstance(module, _BatchNorm) and module.momentum is None and module.track_running_stats:
            raise NotGroupedError(
                f"{what} has momentum=None: its running statistics average over all batches, and their number is read "
                "back from the device in each pass; give it a momentum, for example 0.1"
            )
        if "forward" in vars(module):
            raise NotGroupedError(
                f"{what} has its own `forward` as an attribute (torch.compile sets one, or it was set by hand), which "
                "calls the module itself and not its view; pass the module as it was before, and compile with compiler="
            )


def described(net: nn.Module, name: str, module: nn.Module) -> str:
    """A module in words for messages: its class and where it is."""
    if not name:
        return f"the net {type(module).__name__} itself"
    return f"{type(module).__name__} at {name!r} of {type(net).__name__}"
