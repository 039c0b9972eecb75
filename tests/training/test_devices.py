"""A whole run on each kind of device: training, an end, a resume, scores, samples of the generator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fastdat.data import ImageSet, TrainSampler
from fastdat.metrics import Extractor, ImageEvaluator
from fastdat.metrics import evaluators as evaluate_module
from fastdat.training import Trainer, preset
from fastdat.training.trained import load_trained
from tests.training import runs
from tests.training.runs import EndError, Means, latest, read_stats

SETTINGS: dict[str, Any] = {
    "ngf": 8,
    "ndf": 8,
    "nz": 8,
    "batch_size": 8,
    "n_dis": 2,
    "steps": 6,
    "log_every": 2,
    "sample_every": 3,
    "checkpoints.every": 3,
    "samples": 4,
    "ema": 0.9,
    "precision": "fp32",  # what a test does not set is the same on all devices
    "channels_last": False,
    "cudnn_benchmark": False,
    "logger": "none",
    "eval.every": 3,
    "eval.metrics": ["kid"],
    "eval.fakes": 16,
    "eval.reals": 16,
    "eval.splits": ["train"],
}


@pytest.fixture
def noise() -> ImageSet:
    images = torch.randint(
        0, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return ImageSet("noise", images, torch.arange(64) % 10, tuple("0123456789"))


@pytest.fixture(autouse=True)
def _without_torch_fidelity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with a GPU may not have it, and these tests are about devices, not about scores."""
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
    return runs.trainer_of(config, data, outdir, evaluator)


def end_in_step_5(trainer: Trainer) -> None:
    """Train until the fifth step asks for its inputs."""
    fill = trainer.iteration.fill

    def ending(step: int) -> Any:
        if step == 4:
            raise EndError
        return fill(step)

    trainer.iteration.fill = ending  # type: ignore[method-assign]
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
    assert [line["step"] for line in read_stats(tmp_path / "run")] == [2, 4, 6]
    assert latest(tmp_path / "run")["step"] == 6
    assert trainer.ema is not None
    tensors = [p for net in (trainer.netG, trainer.netD, trainer.ema.net) for p in net.parameters()]
    tensors += [t for state in trainer.optD.state.values() for t in state.values() if t.dim() > 0]
    assert {tensor.device.type for tensor in tensors} == {device}
    images = torch.cat(list(load_trained(tmp_path / "run", device=device).samples(5)))
    assert (images.shape, images.device.type) == ((5, 3, 32, 32), device)


@pytest.mark.gpu
def test_resuming_is_exact_on_a_gpu_too(noise: ImageSet, tmp_path: Path) -> None:
    """With deterministic kernels: 6 steps without a stop, and 6 with an end in the fifth."""
    changes = {"compile": False, "eval.every": None}
    torch.use_deterministic_algorithms(True)
    try:
        trainer_of(noise, "cuda", tmp_path / "straight", "sngan-dat-cifar10", **changes).train()
        end_in_step_5(trainer_of(noise, "cuda", tmp_path / "stopped", "sngan-dat-cifar10", **changes))
        trainer_of(noise, "cuda", tmp_path / "stopped", "sngan-dat-cifar10", **changes).train()
    finally:
        torch.use_deterministic_algorithms(False)
    straight, stopped = (latest(tmp_path / name) for name in ("straight", "stopped"))
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
    trainers[1].iteration.batches = TrainSampler(noise, 8, seed=0, device="cuda", resident=False)
    for trainer in trainers:
        trainer.train()
    first = [read_stats(tmp_path / name)[0]["logits_real"] for name in ("resident", "ahead")]
    assert first[0] == pytest.approx(first[1], rel=1e-3)
