"""What several tests of the engine share."""

from __future__ import annotations

from typing import Any

import pytest
import torch


@pytest.fixture
def only_traced(monkeypatch: pytest.MonkeyPatch, own_engines: None) -> None:
    """torch.compile traces and guards a step, and runs the traced graph as it is: seconds instead of minutes."""
    compile = torch.compile

    def traced(function: Any, *, options: dict[str, Any], **rest: Any) -> Any:
        return compile(
            function, backend="eager", options={"guard_filter_fn": options["guard_filter_fn"]}, **rest
        )

    monkeypatch.setattr(torch, "compile", traced)
