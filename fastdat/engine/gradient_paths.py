"""Where a gradient of D's logits can go: found once, in autograd's graph of one call of D."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fastdat.engine.copies import Copies
from fastdat.engine.discriminator import call_aux
from fastdat.engine.microbatch import split
from fastdat.engine.types import AuxLoss, StepInputs, Tensors


@dataclass(frozen=True, slots=True)
class Paths:
    """What autograd's graph of D's logits, and of aux_loss, contains."""

    to_samples: bool
    """Logits depend on the samples."""
    to_weights: bool
    """Logits depend on D's parameters."""
    strangers: tuple[torch.Size, ...]
    """Shapes of the tensors that require a gradient, were there before the call, and are neither of D nor samples."""
    functions: tuple[str, ...]
    """Names of the autograd.Functions that are called."""
    has_hooks: bool
    """D registers hooks on tensors while it runs (``Tensor.register_hook``)."""
    is_fp16: bool
    """D, or aux_loss, computes in fp16."""


def paths_of(
    D: nn.Module,
    weights: Tensors,
    buffers: Tensors,
    inputs: StepInputs,
    aux_loss: AuxLoss | None,
    microbatch: int | None,
) -> Paths:
    """Run a bypassed D on the reals, at most ``microbatch`` of them, and walk through the graph.

    A D that keeps activations until its backward pass has no more of them here than in a step.
    """
    batch = Copies(inputs.batch if microbatch is None else split(inputs.batch, microbatch)[0]).batch
    wanted = {name: w.detach().requires_grad_(_is_differentiable(w)) for name, w in weights.items()}
    at = batch.replaced(batch.xr.requires_grad_(), batch.xf.requires_grad_())
    noted = _Noted()
    # A part of D that is compiled already is an autograd.Function only where it runs compiled.
    with torch.compiler.set_stance("force_eager"), torch.enable_grad(), noted:
        held = {name: buffer.clone() for name, buffer in buffers.items()}
        out: Any = torch.func.functional_call(
            D, {**wanted, **held}, (at.xr, *at.args_real), tie_weights=False
        )
        logits = out[0] if isinstance(out, (tuple, list)) else out
        aux = [] if aux_loss is None else [call_aux(D, aux_loss, wanted, buffers, at)[0]]
    leaves, functions = _ends_of([logits])
    of_aux, more = _ends_of(aux)
    own = {id(tensor) for tensor in (*wanted.values(), at.xr, at.xf, *noted.made)}
    return Paths(
        to_samples=id(at.xr) in leaves,
        to_weights=any(id(w) in leaves for w in wanted.values()),
        strangers=tuple(leaf.shape for key, leaf in {**leaves, **of_aux}.items() if key not in own),
        functions=tuple(sorted(functions | more)),
        has_hooks=noted.has_hooks,
        is_fp16=noted.is_fp16,
    )


def _is_differentiable(weight: Tensor) -> bool:
    return weight.is_floating_point() or weight.is_complex()


class _Noted(TorchFunctionMode):
    """Within it are noted: hooks on tensors, results in fp16, and tensors that D or aux_loss make to require a
    gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.has_hooks = self.is_fp16 = False
        self.made: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype is torch.float16:
            self.is_fp16 = True
        if func is Tensor.register_hook:
            self.has_hooks = True
        elif func in _MAKE_LEAVES:
            self.made.append(args[0])
        elif kwargs and kwargs.get("requires_grad"):
            self.made.append(result)
        return result


_MAKE_LEAVES = (Tensor.requires_grad_, Tensor.requires_grad.__set__)  # type: ignore[attr-defined]


def _ends_of(results: Iterable[Tensor]) -> tuple[dict[int, Tensor], set[str]]:
    """Leaves of the graph of ``results`` by their id, and the names of the autograd.Functions in it."""
    leaves: dict[int, Tensor] = {}
    functions: set[str] = set()
    seen: set[Any] = set()
    ahead: list[Any] = []
    for result in results:
        if result.grad_fn is None and result.requires_grad:  # a leaf itself
            leaves[id(result)] = result
        ahead.append(result.grad_fn)
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        ahead += [following for following, _ in node.next_functions]
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            functions.add(type(node).__name__.removesuffix("Backward"))
        leaf = getattr(node, "variable", None)  # of AccumulateGrad
        if isinstance(leaf, Tensor):
            leaves[id(leaf)] = leaf
    return leaves, functions
