"""Why D failed on a batch, where the reason can be seen in the batch: another dtype, device or number of samples."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from fastdat.engine.types import Args


@contextmanager
def explained(
    D: nn.Module, tensors: Mapping[str, Tensor], x: Tensor, args: Args, side: str
) -> Iterator[None]:
    """Within it D is called as ``D(x, *args)`` with the samples and arguments of ``side``, "real" or "fake".

    An error of which nothing is known goes through as it is, and so does an error of D's own.
    """
    try:
        yield
    except (RuntimeError, IndexError) as error:
        reason = _reason(tensors, x, args, side)
        if reason is None:
            raise
        raise ValueError(f"{reason} ({error})") from error
    except TypeError as error:
        if _takes(D, x, args):
            raise
        raise TypeError(
            f"D.forward{_signature(D)} was called as D(x{side[0]}, *args_{side}) with {len(args)} further argument(s) "
            f"({error}): give D's further arguments, labels say, as dat_step(..., args_real=(y_real,), "
            "args_fake=(y_fake,))"
        ) from error


def _reason(tensors: Mapping[str, Tensor], x: Tensor, args: Args, side: str) -> str | None:
    of_args = [(i, arg) for i, arg in enumerate(args) if isinstance(arg, Tensor)]
    elsewhere = {name: t.device for name, t in tensors.items() if t.device != x.device and t.ndim > 0}
    for i, arg in of_args:
        if arg.device != x.device:
            return (
                f"args_{side}[{i}] is on {arg.device} and x{side[0]} on {x.device}: move it with "
                f".to({str(x.device)!r})"
            )
    for name, device in elsewhere.items():
        return (
            f"D's '{name}' is on {device} and x{side[0]} on {x.device}: move D with D.to({str(x.device)!r})"
        )
    dtypes = sorted({str(t.dtype) for t in tensors.values() if t.is_floating_point()})
    if dtypes and str(x.dtype) not in dtypes:
        return (
            f"D is {' and '.join(dtypes)} and failed on x{side[0]} of {x.dtype}: convert the samples with "
            f"x.to({dtypes[0]}), or D with D.to({x.dtype}), or run the step under torch.autocast({x.device.type!r}, "
            "dtype=torch.bfloat16) with samples and D in torch.float32"
        )
    for i, arg in of_args:
        if arg.shape[:1] != x.shape[:1]:
            return (
                f"D failed with args_{side}[{i}] of shape {tuple(arg.shape)} and x{side[0]} of shape "
                f"{tuple(x.shape)}: give one label a sample, ({x.shape[0]}, ...)"
            )
    return None


def _signature(D: nn.Module) -> str:
    try:
        return str(inspect.signature(D.forward))
    except (TypeError, ValueError):  # of a function written in C
        return "(...)"


def _takes(D: nn.Module, x: Tensor, args: Args) -> bool:
    """Whether D's forward has as many arguments."""
    try:
        inspect.signature(D.forward).bind(x, *args)
    except TypeError:
        return False
    except ValueError:  # of a function written in C
        return True
    return True
