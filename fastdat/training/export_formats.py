"""A trained generator as a file for other programs: safetensors, ONNX, torch.export.

Each file is read back, and its samples are compared with the generator's, before it is written.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastdat.training import noise
from fastdat.training.models import build_nets, channels_of
from fastdat.training.trained import Trained
from fastdat.util.errors import RunFolderError
from fastdat.util.files import write_output
from fastdat.util.version import __version__

_CLOSE = 1e-4
"""Largest difference of a sample in [-1, 1] between the generator and its file."""


def write_safetensors(trained: Trained, path: Path) -> str:
    """Write the generator's weights under the names of its state_dict; the header says what is needed to build it.

    Returns:
        What was written and compared, in words.

    Raises:
        RunFolderError: here and below, the file's samples differ from the generator's, or it cannot be written.
        ModuleNotFoundError: here and below, a package is missing.
    """
    import safetensors.torch

    weights = {name: tensor.contiguous() for name, tensor in trained.net.state_dict().items()}
    content: bytes = safetensors.torch.save(weights, _about(trained))
    again, _ = build_nets(trained.config)
    again.load_state_dict(safetensors.torch.load(content))
    return _checked(trained, path, content, again.eval())


def write_onnx(trained: Trained, path: Path) -> str:
    """Write an ONNX model: z (N, nz), and labels (N,) int64 for a conditional model, -> images; any N.

    Returns:
        What was written and compared, in words.
    """
    import onnxruntime
    import onnxscript  # noqa: F401 - torch.onnx needs it

    inputs = _inputs(trained, 2)
    names = ["z", "labels"][: len(inputs)]
    with _quiet():
        program: Any = torch.onnx.export(
            trained.net,
            inputs,
            dynamo=True,
            dynamic_shapes=_any_count(inputs),
            input_names=names,
            output_names=["images"],
            verbose=False,
        )
    model = program.model_proto
    for name, value in _about(trained).items():
        model.metadata_props.add(key=name, value=value)
    content: bytes = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> Tensor:
        given = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return _checked(trained, path, content, run)


def write_pt2(trained: Trained, path: Path) -> str:
    """Write a program that ``torch.export.load`` reads without fastdat: z, and labels, -> images; any N.

    Returns:
        What was written and compared, in words.
    """
    inputs, file = _inputs(trained, 2), io.BytesIO()
    with _quiet():
        program = torch.export.export(trained.net, inputs, dynamic_shapes=_any_count(inputs))
        torch.export.save(program, file, extra_files={"about.json": json.dumps(_about(trained))})
        again = torch.export.load(io.BytesIO(file.getvalue())).module()
    return _checked(trained, path, file.getvalue(), again)


FORMATS: dict[str, Callable[[Trained, Path], str]] = {
    "safetensors": write_safetensors,
    "onnx": write_onnx,
    "pt2": write_pt2,
}


def _about(trained: Trained) -> dict[str, str]:
    """What a reader needs to know of the generator; no paths, which are the user's own."""
    config = trained.config
    about = {key: getattr(config, key) for key in ("model", "dataset", "resolution", "ngf", "nz")}
    about |= {"channels": channels_of(config), "classes": trained.classes}
    about |= {"step": trained.step, "weights": trained.weights}
    # ngf is None for the model's own width.
    known = {key: str(value) for key, value in about.items() if value is not None}
    return {"fastdat": __version__} | known


def _inputs(trained: Trained, count: int) -> tuple[Tensor, ...]:
    draws = trained.noise(seed=0)
    return (draws.draw(noise.COMMAND, 0, count), *draws.labels(noise.COMMAND, 0, count))


def _any_count(inputs: tuple[Tensor, ...]) -> tuple[dict[int, Any], ...]:
    count = torch.export.Dim("N", min=1)
    return tuple({0: count} for _ in inputs)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides warnings of torch about its own code, and about z and labels having one number of samples."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)  # torch 2.11
        warnings.filterwarnings("ignore", ".*The axis name: N will not be used", UserWarning)
        yield


def _checked(trained: Trained, path: Path, content: bytes, again: nn.Module | Callable[..., Tensor]) -> str:
    """Write ``content`` if ``again``, which was read back from it, generates the same samples; the result in words."""
    furthest = 0.0
    for count in (1, 3):
        inputs = _inputs(trained, count)
        with torch.no_grad():
            expected, found = trained.net(*inputs), again(*inputs)
        if found.shape != expected.shape:
            raise RunFolderError(
                f"{path} was not written: read back, it makes {tuple(found.shape)}, not {tuple(expected.shape)}"
            )
        furthest = max(furthest, (found - expected).abs().max().item())
    if not furthest <= _CLOSE:
        raise RunFolderError(
            f"{path} was not written: read back, its samples differ from the generator's by up to {furthest:.2g}, more "
            f"than {_CLOSE:g}"
        )
    write_output(path, content)
    return (
        f"{trained.weights} of step {trained.step}, {len(content) / 1e6:.1f} MB; read back, its samples differ by "
        f"{furthest:.1g}"
    )
