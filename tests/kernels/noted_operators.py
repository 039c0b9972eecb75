"""Which of fastdat's operators run."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class NotedOperators(TorchDispatchMode):
    """Notes the names of fastdat's operators that run within this context."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "fastdat":
            self.names.add(func._schema.name.removeprefix("fastdat::"))
        return func(*args, **(kwargs or {}))
