"""Which ATen operations give zero where some of their arguments are zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten, prims = torch.ops.aten, torch.ops.prims

Args = tuple[Any, ...]
IsZero = Callable[[Any], bool]
"""Whether a tensor or number is known to be zero throughout."""
Verdict = bool | tuple[bool, ...]
"""Whether all results of an operation are zero; for several results, which of them are."""
Rule = Callable[[Args, IsZero], Verdict]


def verdict(op: Any, args: Args, is_zero: IsZero) -> Verdict:
    """Which results of ``op(*args)`` are known to be zero; False for an operation without a rule.

    Args:
        op: an OpOverload.
        args: its positional arguments: tensors, or graph nodes in their place.
        is_zero: tells whether an argument is known to be zero.
    """
    rule = _RULES.get(getattr(op, "overloadpacket", None))
    return False if rule is None else rule(args, is_zero)


def _made(args: Args, is_zero: IsZero) -> bool:
    return True


def _first(args: Args, is_zero: IsZero) -> bool:
    return is_zero(args[0])


def _second(args: Args, is_zero: IsZero) -> bool:
    return is_zero(args[1])


def _third(args: Args, is_zero: IsZero) -> bool:
    return is_zero(args[2])


def _either(args: Args, is_zero: IsZero) -> bool:
    return is_zero(args[0]) or is_zero(args[1])


def _both(args: Args, is_zero: IsZero) -> bool:
    return is_zero(args[0]) and is_zero(args[1])


def _all_listed(args: Args, is_zero: IsZero) -> bool:
    return all(is_zero(item) for item in args[0])


def _quotient(args: Args, is_zero: IsZero) -> bool:
    return is_zero(args[0]) and isinstance(args[1], (int, float)) and args[1] != 0  # 0 / 0 stays NaN


def _power(args: Args, is_zero: IsZero) -> bool:
    return is_zero(args[0]) and isinstance(args[1], (int, float)) and args[1] > 0


def _where(args: Args, is_zero: IsZero) -> bool:
    return len(args) == 3 and is_zero(args[1]) and is_zero(args[2])


def _padded(args: Args, is_zero: IsZero) -> bool:
    return is_zero(args[0]) and (len(args) < 3 or is_zero(args[2]))


def _first_and_third(args: Args, is_zero: IsZero) -> bool:
    return is_zero(args[0]) and is_zero(args[2])


def _affine_product(args: Args, is_zero: IsZero) -> bool:
    return is_zero(args[0]) and (is_zero(args[1]) or is_zero(args[2]))


def _convolution(args: Args, is_zero: IsZero) -> bool:
    return _either(args, is_zero) and (args[2] is None or is_zero(args[2]))


def _convolution_backward(args: Args, is_zero: IsZero) -> tuple[bool, bool, bool]:
    grad, x, weight = (is_zero(arg) for arg in args[:3])
    return grad or weight, grad or x, grad


_MADE = (aten.zeros, aten.zeros_like, aten.new_zeros, aten._efficientzerotensor, aten.zero)
_VIEWS = (
    *(aten.view, aten._unsafe_view, aten.reshape, aten.expand, aten.permute, aten.transpose, aten.t),
    *(aten.squeeze, aten.unsqueeze, aten.slice, aten.select, aten.as_strided, aten.alias, aten.detach),
    *(aten.diagonal, aten.split, aten.split_with_sizes, aten.unbind),
)
_COPIES = (
    *(aten.clone, aten.contiguous, aten._to_copy, aten.lift_fresh_copy, aten.flip, aten.roll, aten.repeat),
    *(aten.index, aten.index_select, aten.gather, prims.convert_element_type),
)
# Functions with f(0) = 0, and those linear in their first argument.
_THROUGH_ZERO = (
    *(aten.neg, aten.abs, aten.sign, aten.relu, aten.leaky_relu, aten.tanh, aten.sqrt, aten.square),
    *(aten.sum, aten.mean, aten.cumsum, aten.avg_pool2d, aten._adaptive_avg_pool2d),
    *(aten.upsample_nearest2d, aten.upsample_bilinear2d),
)
# Derivatives, linear in the gradient that comes first.
_BACKWARD = (
    *(aten.slice_backward, aten.select_backward, aten.threshold_backward, aten.leaky_relu_backward),
    *(aten.hardtanh_backward, aten.elu_backward, aten.tanh_backward, aten.sigmoid_backward),
    *(aten.softplus_backward, aten.gelu_backward, aten.silu_backward, aten.avg_pool2d_backward),
    *(aten._adaptive_avg_pool2d_backward, aten.max_pool2d_with_indices_backward),
    *(aten.upsample_nearest2d_backward, aten.upsample_bilinear2d_backward, aten.embedding_dense_backward),
    *(aten.native_batch_norm_backward, aten.native_layer_norm_backward, aten.native_group_norm_backward),
)

_RULES: dict[Any, Rule] = {
    **dict.fromkeys(_MADE, _made),
    **dict.fromkeys((*_VIEWS, *_COPIES, *_THROUGH_ZERO, *_BACKWARD, aten.scalar_tensor), _first),
    **dict.fromkeys((aten.full, aten.full_like, aten.fill, aten.copy), _second),
    **dict.fromkeys((aten.mul, aten.mm, aten.bmm, aten.mv, aten.dot), _either),
    **dict.fromkeys((aten.add, aten.sub, aten.maximum, aten.minimum), _both),
    **dict.fromkeys((aten.cat, aten.stack), _all_listed),
    **dict.fromkeys((aten.addmm, aten.baddbmm), _affine_product),
    aten.new_full: _third,
    aten.masked_fill: _first_and_third,
    aten.div: _quotient,
    aten.pow: _power,
    aten.where: _where,
    aten.constant_pad_nd: _padded,
    aten.convolution: _convolution,
    aten.convolution_backward: _convolution_backward,
}

SUMS = (aten.add.Tensor, aten.sub.Tensor)
"""x + 0 and x - 0 are x."""
EXPENSIVE = frozenset(
    {aten.convolution, aten.convolution_backward, aten.mm, aten.bmm, aten.addmm, aten.baddbmm}
)
"""Operations worth leaving out one by one; the others cost less than knowing the shape of their result."""
