"""Import torch-fidelity even if torchvision's compiled operators do not load.

torchvision registers shape functions for its operators ``nms`` and ``qnms`` on import. With a torch that it was not
built for (a CPU build, for example) these operators are missing, and the import fails. Nothing here calls them, so it
suffices to declare their schemas.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from types import ModuleType
from typing import Any

import torch

from fastdat.util.errors import ConfigError

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


@cache
def torch_fidelity() -> ModuleType:
    """The imported package ``torch_fidelity`` with the modules used here.

    Raises:
        ConfigError: the package is not installed.
    """
    if importlib.util.find_spec("torch_fidelity") is None:
        raise ConfigError(
            'FID, KID, IS and precision-recall need torch-fidelity: pip install "fastdat[train]"'
        )
    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # "operator torchvision::nms does not exist"
        _declare_missing_operators()
    import torch_fidelity as package
    import torch_fidelity.metric_fid
    import torch_fidelity.metric_isc
    import torch_fidelity.metric_kid
    import torch_fidelity.metric_prc
    import torch_fidelity.utils

    loaded: ModuleType = package
    return loaded


_library: list[Any] = []  # declarations live as long as the library object


def _declare_missing_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    _library.append(library)
