"""A whole run on each kind of device: training, an end in the middle, going on, scores, a generator taken from it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastdat.data import ImageSet, TrainSampler
from fastdat.metrics import Extractor, ImageEvaluator
from fastdat.metrics import evaluators as evaluate_module
from fastdat.training import Trainer, build, build_trainer, checkpoint, preset
from fastdat.training.display import Lines
from fastdat.training.trained import load_trained

SETTINGS: dict[str, Any] = {
    "ngf": 8,
    "ndf": 8,
    "nz": 8,
    "batch_size": 8,
    "n_dis": 2,
    "steps": 6,
    "log_every": 2,
    "sample_every": 3,
    "checkpoint_every": 3,
    "samples": 4,
    "ema": 0.9,
    "tensorboard": False,
    "eval.every": 3,
    "eval.metrics": ["kid"],
    "eval.fakes": 16,
    "eval.reals": 16,
    "eval.splits": ["train"],
}


class EndError(Exception):
    """The end of the process, as far as the trainer can tell."""


class Means(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean((2, 3)) / 255


@pytest.fixture
def noise() -> ImageSet:
    images = torch.randint(
        0, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return ImageSet("noise", images, torch.arange(64) % 10, tuple("0123456789"))


@pytest.fixture(autouse=True)
def _without_torch_fidelity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with a GPU may have none; what is looked at here is on which device things are."""
    monkeypatch.setattr(evaluate_module, "torch_fidelity", lambda: type("None", (), {"__version__": "none"}))
    monkeypatch.setattr(
        evaluate_module, "make_extractor", lambda name, weights, device: Extractor(name, Means(), "none")
    )
    monkeypatch.setattr(evaluate_module, "real_features", real_features)
    monkeypatch.setattr(
        evaluate_module,
        "against_reals",
        lambda fake, real, statistics, config: {"kid": (fake - real).norm().item()},
    )


def real_features(
    data: ImageSet, count: int, seed: int, extractor: Extractor, device: torch.device, *_: Any
) -> Any:
    features, _logits = extractor(data.images[:count].to(device))
    return type("Reals", (), {"features": features, "statistics": None})


def trainer_of(data: ImageSet, device: str, outdir: Path, name: str, **changes: Any) -> Trainer:
    config = preset(name).replace(SETTINGS | {"device": device} | changes)
    evaluator = ImageEvaluator(config.eval, {"train": data}, torch.device(device))
    return build_trainer(config, data, outdir, evaluator=evaluator, display=Lines(io.StringIO()))


def end_in_step_5(trainer: Trainer) -> None:
    """Train until the fifth step begins."""
    iterate = trainer._iterate

    def ending(step: int) -> None:
        if step == 4:
            raise EndError
        iterate(step)

    trainer._iterate = ending  # type: ignore[method-assign]
    with pytest.raises(EndError):
        trainer.train()


FAMILIES = ("sngan-dat-cifar10", "infomaxgan-dat-cifar10", "csngan-dat-cifar10", "dcgan-dat-cifar10")
EAGER = [(name, precision, False) for name in FAMILIES for precision in ("fp32", "bf16")]
COMPILED = [("sngan-dat-cifar10", "bf16", True), ("infomaxgan-dat-cifar10", "fp32", True)]
CASES = [
    *(pytest.param("cpu", *case) for case in EAGER),
    *(pytest.param("cuda", *case, marks=pytest.mark.gpu) for case in (*EAGER, *COMPILED)),
]


@pytest.mark.parametrize(("device", "name", "precision", "compiled"), CASES)
def test_a_run(
    device: str, name: str, precision: str, compiled: bool, noise: ImageSet, tmp_path: Path
) -> None:
    changes = {"precision": precision, "compile": compiled, "channels_last": precision == "bf16"}
    end_in_step_5(trainer_of(noise, device, tmp_path / "run", name, **changes))
    trainer = trainer_of(noise, device, tmp_path / "run", name, **changes)
    assert trainer.done == 3
    trainer.train()
    stats = [json.loads(line) for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    assert [line["step"] for line in stats] == [2, 4, 6]
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "latest.pt")["step"] == 6
    assert trainer.ema is not None
    tensors = [p for net in (trainer.netG, trainer.netD, trainer.ema.net) for p in net.parameters()]
    tensors += [t for state in trainer.optD.state.values() for t in state.values() if t.dim() > 0]
    assert {tensor.device.type for tensor in tensors} == {device}
    images = torch.cat(list(load_trained(tmp_path / "run", device=device).samples(5)))
    assert (images.shape, images.device.type) == ((5, 3, 32, 32), device)


def test_adam_is_stepped_without_a_warning_where_torch_sees_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch warns of ``capturable=True`` in a step that no CUDA graph captures."""
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    net = nn.Linear(2, 1)
    optimizer = build._adam(net, preset("sngan-dat-cifar10"))
    before = net.weight.detach().clone()
    net(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    assert not torch.equal(net.weight, before)


@pytest.mark.gpu
def test_going_on_is_exact_on_a_gpu_too(noise: ImageSet, tmp_path: Path) -> None:
    """With deterministic kernels: 6 steps straight, and 6 with an end after the third."""
    changes = {"compile": False, "eval.every": None}
    torch.use_deterministic_algorithms(True)
    try:
        trainer_of(noise, "cuda", tmp_path / "straight", "sngan-dat-cifar10", **changes).train()
        end_in_step_5(trainer_of(noise, "cuda", tmp_path / "stopped", "sngan-dat-cifar10", **changes))
        trainer_of(noise, "cuda", tmp_path / "stopped", "sngan-dat-cifar10", **changes).train()
    finally:
        torch.use_deterministic_algorithms(False)
    paths = [tmp_path / name / "checkpoints" / "latest.pt" for name in ("straight", "stopped")]
    straight, stopped = map(checkpoint.load, paths)
    for net in ("netG", "netD", "ema"):
        for key, value in straight[net].items():
            assert torch.equal(value, stopped[net][key]), f"{net}.{key}"


@pytest.mark.gpu
def test_a_set_too_large_for_the_gpu_is_gathered_ahead(noise: ImageSet, tmp_path: Path) -> None:
    settings = {"compile": False, "eval.every": None}
    trainers = [
        trainer_of(noise, "cuda", tmp_path / name, "sngan-dat-cifar10", **settings)
        for name in ("resident", "ahead")
    ]
    trainers[1]._batches = TrainSampler(noise, 8, seed=0, device="cuda", resident=False)
    for trainer in trainers:
        trainer.train()
    first = [
        json.loads((tmp_path / name / "stats.jsonl").read_text().splitlines()[0])["logits_real"]
        for name in ("resident", "ahead")
    ]
    assert first[0] == pytest.approx(first[1], rel=1e-3)
