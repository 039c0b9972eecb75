"""The operations as callers use them: as Triton kernels where those run, else as plain formulas.

Signatures, results and errors are those of the same name in ``formulas``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from inspect import signature
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

from fastdat.kernels import formulas
from fastdat.kernels.dispatch import AVAILABLE, use_triton
from fastdat.kernels.logit_functions import TABLE, LogitFunction
from fastdat.kernels.spectral_norm import spectral_norm as spectral_norm  # computes either itself

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
        fits: whether the kernel supports the arguments.
    """
    kernel: Any = getattr(import_module(f"fastdat.kernels.{module}"), formula.__name__) if AVAILABLE else None
    name_of_first = next(iter(signature(formula).parameters))

    @wraps(formula)
    def operation(*args: Arguments.args, **named: Arguments.kwargs) -> Results:
        first: Any = args[0] if args else named.get(name_of_first, ())
        first = first if isinstance(first, Tensor) else next(iter(first), None)
        if first is None or not use_triton(first) or not fits(*args, **named):
            return formula(*args, **named)
        found: Results = kernel(*args, **named)
        return found

    return operation


def _in_table(clean: Any, now: Any, targets: Any, attacked: Any, *rest: Any, **named: Any) -> bool:
    """Whether both functions are in the table and the means are those of this process, as the kernel requires."""
    known = all(isinstance(a, LogitFunction) and TABLE.get(a.code) is a for a in attacked)
    return known and len(rest) < 3 and "means" not in named


perturb_clip = _dispatched(formulas.perturb_clip, "perturb_clip")
"""The kernel compiles anew for each value of ``delta_clip`` and ``bounds``."""
perturb_clip_stats = _dispatched(formulas.perturb_clip_stats, "perturb_clip")
attack_coefficients = _dispatched(formulas.attack_coefficients, "attack_coefficients", _in_table)
