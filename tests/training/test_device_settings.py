"""What "auto" comes to on each kind of device, in a run that begins and in one that goes on.

A GPU is pretended by what it is asked for its abilities: such a run trains on the CPU, in bf16 and channels_last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from fastdat.data import ImageSet
from fastdat.training import PRESETS, ConfigError, TrainConfig, Trainer, device_settings, preset
from fastdat.training.device_settings import AUTOMATIC, Abilities, as_begun, choice, cudnn_tuned, settled
from fastdat.training.resume import changed_training, other_settings
from tests.training.runs import (
    assert_same,
    latest,
    read_log,
    results,
    resumable,
    silent,
    tiny,
    train_until,
    trainer_of,
)

CPU = torch.device("cpu")
GPU, OLD_GPU, NO_GPU = Abilities(cuda=True, bf16=True), Abilities(cuda=True), Abilities()
ON_GPU = {"precision": "bf16", "channels_last": True, "cudnn_benchmark": True}
ON_CPU = {"precision": "fp32", "channels_last": False, "cudnn_benchmark": False}
ALL_AUTO = dict.fromkeys(AUTOMATIC, "auto")


@pytest.fixture(scope="module")
def noise() -> ImageSet:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (32, 3, 32, 32), dtype=torch.uint8, generator=draws)
    return ImageSet("noise", images, torch.arange(32) % 10, tuple("0123456789"))


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``pretend(GPU)``: from now on devices have these abilities."""
    return lambda found: monkeypatch.setattr(device_settings, "abilities", lambda device: found)


def automatic(config: TrainConfig | dict[str, Any]) -> dict[str, Any]:
    return {key: config[key] if isinstance(config, dict) else getattr(config, key) for key in AUTOMATIC}


def config_of(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())
    return read


# --- what is chosen ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "name", "expected"),
    [
        (NO_GPU, "sngan-dat-cifar10", ON_CPU),
        (GPU, "sngan-dat-cifar10", ON_GPU),
        (GPU, "r3gan-cifar10", ON_GPU),
        (OLD_GPU, "sngan-dat-cifar10", ON_GPU | {"precision": "fp32"}),
        (GPU, "dcgan-ar-cifar10", ON_GPU | {"precision": "fp32"}),
        (GPU, "dcgan-rfm-cifar10", ON_GPU | {"precision": "fp32"}),
        (GPU, "dcgan-gp-cifar10", ON_GPU),
        (GPU, "mlp-gaussians", ON_CPU),
    ],
)
def test_the_choice(found: Abilities, name: str, expected: dict[str, Any], pretend: Any) -> None:
    pretend(found)
    assert choice(preset(name), CPU) == expected
    config, _ = settled(preset(name).replace(ALL_AUTO), CPU)
    assert automatic(config) == expected


def test_only_what_is_auto_is_chosen(pretend: Any) -> None:
    pretend(GPU)
    config, remarks = settled(preset("sngan-cifar10").replace({"precision": "fp32"}), CPU)
    assert automatic(config) == ON_GPU | {"precision": "fp32"}
    assert remarks == ["channels_last=true, cudnn_benchmark=true (auto on CUDA)"]
    given = TrainConfig(model="sngan", channels_last=True)
    assert settled(given, CPU) == (given, [])


def test_a_gpu_is_asked_whether_it_computes_bf16_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch counts an emulation, which is slower than fp32, unless it is told not to."""
    asked = []

    def supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert device_settings.abilities(torch.device("cuda", 0)) == OLD_GPU
    assert asked == [False]
    assert device_settings.abilities(CPU) == NO_GPU
    assert asked == [False], "a CPU is not asked"


def test_finite_differences_are_computed_in_fp32_unless_bf16_is_given(pretend: Any) -> None:
    pretend(GPU)
    fine = preset("dcgan-cifar10").replace({"regularizers": [{"name": "r1"}, {"name": "ar2"}]})
    config, (remark,) = settled(fine, CPU)
    assert config.precision == "fp32"
    assert remark.endswith("(auto on CUDA; fp32 because bf16 is too coarse for ar2)")
    assert settled(fine.replace({"precision": "bf16"}), CPU)[0].precision == "bf16"


def test_presets_of_images_leave_the_choice_to_the_device() -> None:
    for name, config in PRESETS.items():
        if name.startswith("mlp"):
            assert automatic(config) == ON_CPU, name
        elif name.startswith("table3"):  # two arms of the table need fp32, and its arms are compared
            assert automatic(config) == ALL_AUTO | {"precision": "fp32"}, name
        else:
            assert automatic(config) == ALL_AUTO, name
    assert automatic(TrainConfig()) == ON_CPU


def test_bf16_is_refused_before_anything_is_made_where_a_regularizer_needs_fp32(
    noise: ImageSet, tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match="precision=bf16, but the regularizer ar compares D at samples that"
    ):
        trainer_of(tiny("dcgan-ar-cifar10", precision="bf16"), noise, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("found", "name", "remark"),
    [
        (GPU, "sngan-cifar10", "precision=bf16, channels_last=true, cudnn_benchmark=true (auto on CUDA)"),
        (
            OLD_GPU,
            "sngan-cifar10",
            "precision=fp32, channels_last=true, cudnn_benchmark=true (auto on CUDA; fp32 because this GPU does not "
            "compute bf16)",
        ),
        (
            GPU,
            "dcgan-rfm-cifar10",
            "precision=fp32, channels_last=true, cudnn_benchmark=true (auto on CUDA; fp32 because bf16 is too coarse "
            "for rfm)",
        ),
        (
            NO_GPU,
            "sngan-cifar10",
            "precision=fp32, channels_last=false, cudnn_benchmark=false (auto on the CPU)",
        ),
    ],
)
def test_what_the_log_says(found: Abilities, name: str, remark: str, pretend: Any) -> None:
    pretend(found)
    assert settled(preset(name), CPU)[1] == [remark]


# --- runs --------------------------------------------------------------------------------------------------------


def test_a_run_records_what_was_chosen(noise: ImageSet, tmp_path: Path, pretend: Any) -> None:
    pretend(GPU)
    trainer = trainer_of(tiny(steps=1), noise, tmp_path / "gpu")
    trainer.train()
    assert automatic(config_of(tmp_path / "gpu")) == ON_GPU
    assert automatic(latest(tmp_path / "gpu")["config"]) == ON_GPU
    assert read_log(tmp_path / "gpu").count("precision=bf16, channels_last=true") == 1
    weight = max(trainer.netD.parameters(), key=lambda p: p.ndim)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    pretend(NO_GPU)
    trainer_of(tiny(steps=1), noise, tmp_path / "cpu").train()
    assert automatic(config_of(tmp_path / "cpu")) == ON_CPU
    # bf16 has been at work: the same seed gives other weights.
    nets = [latest(tmp_path / name)["netD"] for name in ("gpu", "cpu")]
    assert any(not torch.equal(value, nets[1][key]) for key, value in nets[0].items())


def test_a_run_goes_on_as_it_was_begun_on_another_device(
    noise: ImageSet, tmp_path: Path, pretend: Any
) -> None:
    pretend(GPU)
    trainer_of(resumable(), noise, tmp_path / "straight").train()
    train_until(trainer_of(resumable(), noise, tmp_path / "run"), 10)
    pretend(NO_GPU)
    trainer_of(resumable(), noise, tmp_path / "run").train()
    assert_same(results(tmp_path / "straight"), results(tmp_path / "run"))
    assert automatic(config_of(tmp_path / "run")) == ON_GPU | {"cudnn_benchmark": False}, (
        "a setting that is free"
    )
    log = read_log(tmp_path / "run")
    assert (
        "precision=bf16, channels_last=true, as the run was begun (auto on the CPU would be precision=fp32, "
        "channels_last=false)" in log
    )
    assert "cudnn_benchmark True then, False now" in log


def test_a_run_from_the_cpu_goes_on_in_fp32_on_a_gpu(noise: ImageSet, tmp_path: Path, pretend: Any) -> None:
    train_until(trainer_of(resumable(), noise, tmp_path), 10)
    pretend(GPU)
    assert automatic(trainer_of(resumable(), noise, tmp_path).config) == ON_CPU | {"cudnn_benchmark": True}


def test_another_precision_that_is_given_is_refused(noise: ImageSet, tmp_path: Path, pretend: Any) -> None:
    pretend(GPU)
    train_until(trainer_of(resumable(), noise, tmp_path), 10)
    with pytest.raises(ConfigError, match="other settings: precision bf16 then, fp32 now"):
        trainer_of(resumable(precision="fp32"), noise, tmp_path)
    (tmp_path / "config.yaml").write_text("[")  # damaged: the checkpoint says how it was begun
    pretend(NO_GPU)
    assert trainer_of(resumable(), noise, tmp_path).config.precision == "bf16"


def test_a_run_without_a_checkpoint_begins_anew_as_the_device_chooses(
    noise: ImageSet, tmp_path: Path, pretend: Any
) -> None:
    pretend(GPU)
    train_until(trainer_of(resumable(), noise, tmp_path), 2)
    pretend(NO_GPU)
    trainer_of(resumable(), noise, tmp_path).train()
    assert automatic(config_of(tmp_path)) == ON_CPU
    assert "precision bf16 then, fp32 now" in read_log(tmp_path)


def test_auto_is_no_difference() -> None:
    """Also where a configuration is compared that no device has settled, as an experiment does."""
    then = preset("sngan-cifar10").replace(ON_GPU)
    assert changed_training(then, preset("sngan-cifar10")) == ""
    assert other_settings(then, preset("sngan-cifar10")) == []
    assert "precision bf16 then, fp32 now" in changed_training(then, then.replace({"precision": "fp32"}))
    mixed = preset("sngan-cifar10").replace({"channels_last": False})
    assert automatic(as_begun(mixed, then)) == ON_GPU | {"channels_last": False}


# --- nets of the user's own, and cuDNN's flag --------------------------------------------------------------------


def own_trainer(data: ImageSet, outdir: Path, seen: list[bool], **settings: Any) -> Trainer:
    torch.manual_seed(0)
    G = nn.Sequential(nn.Linear(8, 3 * 32 * 32), nn.Unflatten(1, (3, 32, 32)), nn.Tanh())
    D = nn.Sequential(nn.Conv2d(3, 2, 4, 4), nn.Flatten(), nn.Linear(128, 1))

    def look(trainer: Trainer) -> None:
        seen.append(torch.backends.cudnn.benchmark)

    kept = {key: getattr(tiny(), key) for key in ("nz", "batch_size", "compile", "logger", "samples")}
    optG, optD = (torch.optim.SGD(net.parameters(), lr=0.1) for net in (G, D))
    return Trainer(
        G, D, optG, optD, data, outdir=outdir, display=silent(), callbacks=[look], **kept | settings, steps=1
    )


def test_own_nets_stay_as_they_are_unless_asked(noise: ImageSet, tmp_path: Path, pretend: Any) -> None:
    """Autocast and cuDNN's flag are the trainer's; the memory format of nets is that of who made them."""
    pretend(GPU)
    seen: list[bool] = []
    own_trainer(noise, tmp_path / "plain", seen).train()
    assert automatic(config_of(tmp_path / "plain")) == ON_CPU
    trainer = own_trainer(noise, tmp_path / "auto", seen, **ALL_AUTO)
    trainer.train()
    assert automatic(config_of(tmp_path / "auto")) == ON_GPU | {"channels_last": False}
    assert automatic(latest(tmp_path / "auto")["config"]) == ON_GPU | {"channels_last": False}
    weight: Tensor = trainer.netD[0].weight  # type: ignore[index, assignment]
    assert weight.is_contiguous()
    assert seen == [False, True]
    assert not torch.backends.cudnn.benchmark
    assert "precision=bf16, channels_last=false, cudnn_benchmark=true (auto on CUDA)" in read_log(
        tmp_path / "auto"
    )


@pytest.mark.parametrize("before", [False, True])
def test_the_flag_of_cudnn_is_what_it_was(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
    limit = torch.backends.cudnn.benchmark_limit
    with cudnn_tuned(TrainConfig(cudnn_benchmark=False)):
        assert torch.backends.cudnn.benchmark is before, "false leaves the user's own setting"
    inside = []

    def failing() -> None:
        with cudnn_tuned(TrainConfig(cudnn_benchmark=True)):
            inside.append(torch.backends.cudnn.benchmark)
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert inside == [True]
    assert torch.backends.cudnn.benchmark is before
    assert torch.backends.cudnn.benchmark_limit == limit
