"""What a checkpoint holds: its entries, and what each of them must be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]

FORMAT = 4

_Check = Callable[[Any], bool]


def problem(state: object) -> str | None:
    """What is wrong with the structure of a checkpoint, as the end of "FILE is no checkpoint: "; None if nothing is."""
    if not isinstance(state, dict):
        return f"it holds a {type(state).__name__}, expected a dict"
    if state.get("format") != FORMAT:
        return (
            f"its format is {state.get('format')!r}, this version of fastdat reads {FORMAT}; go on with the version "
            "that wrote it"
        )
    missing = [key for key in KEYS if key not in state]
    if missing:
        return f"it has no {', '.join(missing)}"
    for key, (expected, holds) in _ENTRIES.items():
        if not holds(state[key]):
            return f"its entry {key!r} is {_shown(state[key])}, expected {expected}"
    if not all(map(is_stored, _tensors_in(state))):
        return "it has a tensor without numbers of its own: sparse, or one number repeated as often as its shape says"
    return None


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor, at any depth."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors_in(item)


def is_stored(tensor: Tensor) -> bool:
    """Whether the tensor takes no more memory than its part of the file, also when it is copied."""
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _shown(value: Any) -> str:
    return (
        repr(value)
        if value is None or isinstance(value, (bool, int, float, str))
        else f"a {type(value).__name__}"
    )


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _number(value: Any) -> bool:
    return type(value) in (int, float) and value >= 0


def _named(value: Any, *names: str) -> bool:
    return (
        isinstance(value, dict) and all(type(key) is str for key in value) and all(n in value for n in names)
    )


def _tensors(value: Any) -> bool:
    return _named(value) and len(value) > 0 and any(isinstance(item, Tensor) for item in value.values())


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is str for item in value)


def _optimizer(value: Any) -> bool:
    if not _named(value, "state", "param_groups"):
        return False
    groups = value["param_groups"]
    return (
        isinstance(value["state"], dict)
        and isinstance(groups, list)
        and all(_named(group, "params", "lr") for group in groups)
    )


def _optimizers(value: Any) -> bool:
    return _named(value, "optG", "optD") and all(
        _named(of, "class", "groups")
        and isinstance(of["groups"], list)
        and all(_named(group) for group in of["groups"])
        for of in (value["optG"], value["optD"])
    )


def _meters(value: Any) -> bool:
    return _named(value, "d", "g") and all(_meter(value[name]) for name in ("d", "g"))


def _meter(value: Any) -> bool:
    return isinstance(value, list) and all(_sum(of) for of in value)


def _sum(value: Any) -> bool:
    if not _named(value, "names", "sum", "count") or not _count(value["count"]):
        return False
    names, total = value["names"], value["sum"]
    return _texts(names) and isinstance(total, Tensor) and total.shape == (len(names),) and value["count"] > 0


def _states(value: Any) -> bool:
    return isinstance(value, list) and all(
        _named(state) and all(isinstance(item, Tensor) for item in state.values()) for state in value
    )


def _rng(value: Any) -> bool:
    if not _named(value, "cpu") or not isinstance(value.get("cuda", []), list):
        return False
    return all(isinstance(state, Tensor) for state in (value["cpu"], *value.get("cuda", [])))


def _best(value: Any) -> bool:
    if value is None:
        return True
    return _named(value, "step", "kind", "rank", "score") and _count(value["step"]) and _named(value["kind"])


_NET = "the tensors of a net by name"
_OPTIMIZER = "an optimizer's state and param_groups"
_ENTRIES: Mapping[str, tuple[str, _Check]] = {
    "step": ("a number of steps", _count),
    "config": ("settings by name", _named),
    "netG": (_NET, _tensors),
    "netD": (_NET, _tensors),
    "optG": (_OPTIMIZER, _optimizer),
    "optD": (_OPTIMIZER, _optimizer),
    "optimizers": ("class and groups of optG and optD", _optimizers),
    "data": ("the fingerprint of images, or None", lambda value: value is None or type(value) is str),
    "ema": (f"{_NET}, or None", lambda value: value is None or _tensors(value)),
    "rng": ("states of random generators", _rng),
    "seconds": ("a number of seconds", _number),
    "attempt": ("a number of rollbacks", _count),
    "meters": ("names, sum and count of two meters", _meters),
    "regularizers": ("the tensors of each regularizer by name", _states),
    "best": ("step, kind, rank and score, or None", _best),
    "unscored": ("true or false", lambda value: type(value) is bool),
    "class_names": ("a list of texts", _texts),
}
KEYS = tuple(_ENTRIES)
