"""The operations as callers use them: as Triton kernels where those run, else as plain formulas.

Signatures, results and errors are those of the same name in ``formulas``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

from fastdat.kernels import formulas
from fastdat.kernels.dispatch import AVAILABLE, use_triton
from fastdat.kernels.logit_functions import LogitFunction

Arguments = ParamSpec("Arguments")
Results = TypeVar("Results")


def _always(*args: Any, **named: Any) -> bool:
    return True


def _dispatched(
    formula: Callable[Arguments, Results], module: str, fits: Callable[..., bool] = _always
) -> Callable[Arguments, Results]:
    """``formula``, or the kernel of the same name in ``fastdat.kernels.<module>`` where that runs.

    Args:
        formula: the definition; its first argument is a tensor, or a sequence of tensors.
        module: where the kernel is; imported only where Triton can run.
        fits: whether the kernel knows the arguments.
    """
    kernel: Any = getattr(import_module(f"fastdat.kernels.{module}"), formula.__name__) if AVAILABLE else None

    @wraps(formula)
    def operation(*args: Arguments.args, **named: Arguments.kwargs) -> Results:
        first: Any = args[0] if args else next(iter(named.values()))
        first = first if isinstance(first, Tensor) else next(iter(first), None)
        if kernel is None or first is None or not use_triton(first) or not fits(*args, **named):
            return formula(*args, **named)
        found: Results = kernel(*args, **named)
        return found

    return operation


def _in_table(clean: Any, now: Any, targets: Any, attacked: Any, *rest: Any, **named: Any) -> bool:
    """The kernel knows the functions of the table, and takes means over the samples of this process."""
    known = all(isinstance(function, LogitFunction) for function in attacked)
    return known and len(rest) < 3 and "means" not in named


perturb_clip = _dispatched(formulas.perturb_clip, "perturb_clip")
"""The kernel compiles anew for each value of ``delta_clip`` and ``bounds``."""
perturb_clip_stats = _dispatched(formulas.perturb_clip_stats, "perturb_clip")
attack_coefficients = _dispatched(formulas.attack_coefficients, "attack_coefficients", _in_table)
spectral_norm = _dispatched(formulas.spectral_norm, "spectral_norm")
