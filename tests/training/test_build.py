"""From a configuration to a trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastdat.data import ImageSet
from fastdat.metrics import ImageEvaluator
from fastdat.training import ConfigError, build, build_nets, build_trainer, load_data, preset
from fastdat.training.build import build_evaluator, choose_device
from tests.training.runs import scored, tiny, trainer_of


def test_optimizers_are_the_papers(few_images: ImageSet, tmp_path: Path) -> None:
    trainer = trainer_of(tiny(), few_images, tmp_path / "run")
    for optimizer, net in ((trainer.optG, trainer.netG), (trainer.optD, trainer.netD)):
        (group,) = optimizer.param_groups
        assert isinstance(optimizer, torch.optim.Adam)
        assert (group["lr"], group["betas"], group["weight_decay"]) == (2e-4, (0.0, 0.9), 0)
        assert {id(p) for p in group["params"]} == {id(p) for p in net.parameters()}


def test_adam_is_stepped_without_a_warning_where_torch_sees_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch warns if an optimizer with ``capturable=True`` is stepped outside a CUDA graph."""
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    net = nn.Linear(2, 1)
    optimizer = build._adam(net, preset("sngan-dat-cifar10"))
    before = net.weight.detach().clone()
    net(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    assert not torch.equal(net.weight, before)


def test_settings_that_do_not_fit_are_refused(
    few_images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(message: str, **changes: Any) -> None:
        with pytest.raises(ConfigError, match=message):
            build_trainer(tiny(**changes), few_images, tmp_path / "run")
        assert not (tmp_path / "run").exists(), "nothing is created before the settings are checked"

    refused(
        r"unknown model 'stylegan'. Did you mean ssgan or sngan\? There are: sngan, ssgan, infomaxgan",
        model="stylegan",
    )
    refused("SNGANGenerator exists at resolution 32, 48, 64, 128; got resolution=40", resolution=40)
    refused("has 100 images; got batch_size=101", batch_size=101)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused("device=cuda, but PyTorch sees no GPU here", device="cuda")
    assert choose_device("auto") == torch.device("cpu")


def test_data_that_do_not_fit_are_refused(cifar10_root: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown dataset 'imagenet'. Did you mean tiny-imagenet"):
        load_data(tiny(dataset="imagenet", data=str(cifar10_root)))
    with pytest.raises(ConfigError, match=r"where is cifar10\? Give --data"):
        load_data(tiny())
    with pytest.raises(
        ConfigError,
        match="model sngan cannot model images with 1 channel, which mnist has; use one of dcgan",
    ):
        load_data(tiny(dataset="mnist", data=str(cifar10_root)))
    with pytest.raises(ConfigError, match="model mlp cannot model images with 3 channels"):
        load_data(tiny(model="mlp"))
    with pytest.raises(ConfigError, match="model csngan needs labels, but stl10 has none"):
        build_nets(tiny(model="csngan", dataset="stl10", resolution=48))


def test_an_auxiliary_loss_refuses_microbatches(few_images: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="microbatch=2: the auxiliary loss of SSGANDiscriminator"):
        build_trainer(tiny("ssgan-dat-cifar10", microbatch=2), few_images, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_scores_have_their_reals_from_the_data_of_the_run(cifar10_root: Path, few_images: ImageSet) -> None:
    """Those that are in memory already are taken as they are; a conditional run is scored on no other classes."""
    seen: list[str] = []

    def sources(name: str, **settings: Any) -> Any:
        evaluator = build_evaluator(
            scored(cifar10_root, name),
            torch.device("cpu"),
            progress=lambda what, done, total: seen.append(what),
            **settings,
        )
        assert isinstance(evaluator, ImageEvaluator)
        return evaluator._sources

    of_run = sources("sngan-dat-cifar10", train=few_images, class_names=("other",))
    assert list(of_run) == ["train", "test"]
    assert of_run["train"] is few_images
    test = of_run["test"]()
    assert test.name == "cifar10 test"
    assert sources("csngan-dat-cifar10", class_names=test.classes)["test"]().fingerprint == test.fingerprint
    assert sources("csngan-dat-cifar10")["train"]().name == "cifar10 train"
    renamed = (*test.classes[:-1], "lorry")
    with pytest.raises(
        ConfigError, match=rf"^cifar10 test in {cifar10_root} has other classes than the run: .*lorry"
    ):
        sources("csngan-dat-cifar10", class_names=renamed)["test"]()


def test_scores_that_do_not_fit_the_data_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"eval.metrics of gaussians may be modes; got \['fid'\]"):
        build_evaluator(tiny("mlp-gaussians", **{"eval.metrics": ["fid"]}), torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"eval.metrics of cifar10 may be fid, kid, .*; got \['modes'\]"):
        build_evaluator(tiny(**{"eval.metrics": ["modes"]}), torch.device("cpu"))
