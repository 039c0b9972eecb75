"""A generator as a file that other programs read: each is read here without fastdat, by the format's own library."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fastdat.data import ImageSet
from fastdat.nets import ConditionalSNGANGenerator
from fastdat.training import RunFolderError
from fastdat.training.export_formats import FORMATS, write_onnx, write_pt2, write_safetensors
from fastdat.training.trained import Trained, load_trained
from tests.training.runs import tiny, trainer_of

ONNX = "ONNX files need the extra `export`"
OF_TORCH = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.* is deprecated:FutureWarning", "ignore:The given buffer is not writable:UserWarning"
)
"""Warnings of torch.export.load about its own code, in torch 2.13 and 2.11."""


@pytest.fixture(scope="module")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    return {}


@pytest.fixture
def trained(few_images: ImageSet, tmp_path: Path, _trained: dict[str, Trained]) -> Trained:
    """The running average of a conditional generator after two steps."""
    if not _trained:
        config = tiny("csngan-dat-cifar10", ema=0.5, steps=2)
        trainer_of(config, few_images, tmp_path / "run").train()
        _trained["it"] = load_trained(tmp_path / "run", device="cpu")
    return _trained["it"]


def read_safetensors(path: Path) -> Callable[..., Tensor]:
    with safetensors.safe_open(path, framework="pt") as file:
        about = file.metadata()
    assert about["fastdat"]
    assert {key: about[key] for key in ("model", "dataset", "step", "weights")} == {
        "model": "csngan",
        "dataset": "cifar10",
        "step": "2",
        "weights": "ema",
    }
    assert about["channels"] == "3"
    sizes = [int(about[key]) for key in ("resolution", "classes", "ngf", "nz")]
    assert sizes == [32, 10, 4, 8]
    net = ConditionalSNGANGenerator(*sizes)
    net.load_state_dict(safetensors.torch.load_file(path))
    return net.eval()


def read_onnx(path: Path) -> Callable[..., Tensor]:
    onnx, runtime = (pytest.importorskip(name, reason=ONNX) for name in ("onnx", "onnxruntime"))
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert {item.key: item.value for item in model.metadata_props}["nz"] == "8"
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [value.name for value in (*session.get_inputs(), *session.get_outputs())] == [
        "z",
        "labels",
        "images",
    ]

    def run(z: Tensor, labels: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"z": z.numpy(), "labels": labels.numpy()})[0])

    return run


def read_pt2(path: Path) -> Callable[..., Tensor]:
    extra: dict[str, Any] = {"about.json": ""}
    program = torch.export.load(str(path), extra_files=extra)
    assert json.loads(extra["about.json"])["classes"] == "10"
    return program.module()


READERS = {"safetensors": read_safetensors, "onnx": read_onnx, "pt2": read_pt2}


@pytest.mark.parametrize("form", FORMATS)
@OF_TORCH
def test_a_file_generates_the_same_samples(form: str, trained: Trained, tmp_path: Path) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime", reason=ONNX)
        pytest.importorskip("onnxscript", reason=ONNX)
    path = tmp_path / "new" / "generator"
    path = path.with_suffix(f".{form}")
    words = FORMATS[form](trained, path)
    assert words.startswith("ema of step 2, ")
    assert " MB; read back, its samples differ by " in words
    net = READERS[form](path)
    for count in (1, 2, 5):  # another number of samples than the file was made with, too
        z, labels = torch.randn(count, 8), torch.arange(count) * 2 + 1
        with torch.no_grad():
            torch.testing.assert_close(net(z, labels), trained.net(z, labels), rtol=0, atol=1e-5)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@OF_TORCH
def test_a_generator_without_labels(few_images: ImageSet, tmp_path: Path) -> None:
    trainer_of(tiny("mlp-dat-gaussians", steps=2), None, tmp_path / "run").train()
    points = load_trained(tmp_path / "run", device="cpu")
    write_pt2(points, tmp_path / "points.pt2")
    program = torch.export.load(str(tmp_path / "points.pt2"))
    assert [count.lower for count in program.range_constraints.values()] == [1], (
        "any number of samples from 1"
    )
    net = program.module()
    z = torch.randn(7, 8)
    assert torch.equal(net(z), points.net(z))


class Drifting(torch.nn.Module):
    """A generator that gives other samples each time."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return torch.as_tensor(self.net(z, labels)) + torch.rand(()) * 1e-2

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self.net.state_dict(*args, **kwargs)


@OF_TORCH
@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_generates_other_samples_is_not_written(
    form: str, trained: Trained, tmp_path: Path
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime", reason=ONNX)
        pytest.importorskip("onnxscript", reason=ONNX)
    path = tmp_path / "generator"
    path.write_text("the old one")
    other = dataclasses.replace(trained, net=Drifting(trained.net).eval())
    with pytest.raises(
        RunFolderError, match=r"generator was not written: read back, its samples differ .* by up"
    ):
        FORMATS[form](other, path)
    assert path.read_text() == "the old one"


def test_nowhere_to_write(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot write .*file/g\.safetensors"):
        write_safetensors(trained, tmp_path / "file" / "g.safetensors")


def test_a_missing_package_is_named(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError, match="onnxruntime"):
        write_onnx(trained, tmp_path / "g.onnx")
