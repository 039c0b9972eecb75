"""Scores while training and afterwards, the best checkpoint, and samples of a trained generator."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from fastdat import cli
from fastdat.data import DataError, ImageSet
from fastdat.metrics import Extractor, ImageEvaluator, extractors, register_extractor
from fastdat.training import (
    ConfigError,
    RunFolderError,
    Trainer,
    build_nets,
    build_trainer,
    checkpoint,
    load_data,
    preset,
)
from fastdat.training.batches import LoaderBatches
from fastdat.training.display import Lines
from fastdat.training.trained import between, load_trained

TINY = {
    "ngf": 4,
    "ndf": 4,
    "nz": 8,
    "batch_size": 4,
    "n_dis": 1,
    "steps": 4,
    "log_every": 2,
    "sample_every": 100,
    "checkpoint_every": 100,
    "samples": 4,
    "compile": False,
    "device": "cpu",
    "eval.every": 2,
    "eval.extractor": "means",
    "eval.metrics": ["kid"],
    "eval.fakes": 20,
    "eval.reals": 30,
}


def means(weights: str | None) -> Extractor:
    class Means(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.float().mean((2, 3)) / 255

    return Extractor("means", Means(), "none")


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(extractors, "FACTORIES", dict(extractors.FACTORIES))
    register_extractor("means", means)
    monkeypatch.setenv("FASTDAT_CACHE", str(tmp_path / "cache"))


def trainer_of(
    data: ImageSet | None, root: Path, outdir: Path, name: str = "sngan-dat-cifar10", **changes: Any
) -> Trainer:
    config = preset(name).replace(TINY | {"data": str(root)} | changes)
    return build_trainer(config, data, outdir, display=Lines(io.StringIO()))


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def invoke(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


class EndError(Exception):
    """The end of the process, as far as the trainer can tell."""


@pytest.fixture
def run(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> Path:
    trainer_of(few_images, cifar10_root, tmp_path / "run").train()
    return tmp_path / "run"


# --- while training ----------------------------------------------------------------------------------------------


def test_scores_while_training(run: Path) -> None:
    found = records(run)
    assert [(r["step"], r["split"], r["weights"]) for r in found] == [
        (2, "train", "G"), (2, "test", "G"), (4, "train", "G"), (4, "test", "G"),
    ]  # fmt: skip
    assert [r["real_count"] for r in found] == [30] * 4
    assert found[1]["data"] != found[0]["data"]
    log = (run / "log.txt").read_text()
    assert "step 4  test [means]  kid " in log
    best = checkpoint.load(run / "checkpoints" / "best.pt")
    kids = {r["step"]: r["scores"]["kid"] for r in found if r["split"] == "train"}
    assert best["step"] == min(kids, key=lambda step: kids[step])
    assert best["best"]["score"] == min(kids.values())
    assert list((run / "tensorboard").iterdir())


def steps_of(run: Path, name: str) -> int:
    return int(checkpoint.load(run / "checkpoints" / f"{name}.pt")["step"])


def scores_of(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the times."""
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records(run)]


@pytest.mark.parametrize("moment", ["before", "between"])
def test_an_end_while_scoring_loses_nothing(
    moment: str, few_images: ImageSet, cifar10_root: Path, tmp_path: Path
) -> None:
    """Before any score of step 2 is written, or between those of train and test."""
    trainer_of(few_images, cifar10_root, tmp_path / "straight").train()
    trainer = trainer_of(few_images, cifar10_root, tmp_path / "ended")
    append, written = trainer.folder.append_metrics, []

    def ending(record: dict[str, Any]) -> None:
        if moment == "before" or written:
            raise EndError
        written.append(record)
        append(record)

    trainer.folder.append_metrics = ending  # type: ignore[method-assign,assignment]
    with pytest.raises(EndError):
        trainer.train()
    assert steps_of(tmp_path / "ended", "latest") == 2
    again = trainer_of(few_images, cifar10_root, tmp_path / "ended")
    assert again.done == 2
    again.train()
    assert scores_of(tmp_path / "ended") == scores_of(tmp_path / "straight")
    a, b = (checkpoint.load(tmp_path / name / "checkpoints" / "latest.pt") for name in ("straight", "ended"))
    assert all(torch.equal(a["netG"][key], b["netG"][key]) for key in a["netG"])
    assert a["best"] == b["best"]


def test_a_stop_request_ends_scoring(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> None:
    trainer = trainer_of(few_images, cifar10_root, tmp_path / "run", **{"eval.batch_size": 4})
    fakes, drawn = trainer._fakes, []

    def asked(count: int) -> Iterator[Tensor]:
        for batch in fakes(count):
            drawn.append(batch)
            os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    trainer._fakes = asked  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert len(drawn) == 1
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "stopped by SIGTERM while being scored after 2 steps; the same command goes on from here" in log
    trainer_of(few_images, cifar10_root, tmp_path / "run").train()
    assert [(r["step"], r["split"]) for r in records(tmp_path / "run")] == [
        (2, "train"), (2, "test"), (4, "train"), (4, "test"),
    ]  # fmt: skip


def test_the_last_scores_are_made_by_a_run_that_ended_before_them(
    few_images: ImageSet, cifar10_root: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(few_images, cifar10_root, tmp_path / "run", **{"eval.every": 100})
    trainer.folder.append_metrics = raising  # type: ignore[method-assign,assignment]
    with pytest.raises(EndError):
        trainer.train()
    assert steps_of(tmp_path / "run", "latest") == 4
    trainer_of(few_images, cifar10_root, tmp_path / "run", **{"eval.every": 100}).train()
    assert [r["step"] for r in records(tmp_path / "run")] == [4, 4]


def raising(*_: Any) -> None:
    raise EndError


def test_a_trainer_trains_once(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> None:
    trainer = trainer_of(few_images, cifar10_root, tmp_path / "run")
    trainer.train()
    with pytest.raises(
        ConfigError, match=r"this Trainer has trained already; a new one on .* goes on from its checkpoint"
    ):
        trainer.train()


def test_random_nets_go_on_exactly_beside_an_evaluator(
    few_images: ImageSet, cifar10_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D drops out by torch's global generator; making an extractor draws from it, too."""

    def careless(weights: str | None) -> Extractor:
        torch.nn.Linear(3, 3)
        return means(weights)

    extractors.FACTORIES["means"] = careless

    def make(outdir: Path) -> Trainer:
        config = preset("sngan-dat-cifar10").replace(
            TINY | {"data": str(cifar10_root), "checkpoint_every": 2}
        )
        netG, _ = build_nets(config)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            netD = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(3072, 1))
        opts = [torch.optim.SGD(net.parameters(), 0.1) for net in (netG, netD)]
        evaluator = ImageEvaluator(
            config.eval, {"train": few_images, "test": few_images}, torch.device("cpu")
        )
        return Trainer(
            netG, netD, *opts, few_images, config, outdir, evaluator=evaluator, display=Lines(io.StringIO())
        )

    torch.manual_seed(3)
    make(tmp_path / "straight").train()
    torch.manual_seed(3)
    first = make(tmp_path / "ended")
    monkeypatch.setattr(
        first, "_record", lambda: (_ for _ in ()).throw(EndError) if first.done == 4 else None
    )
    with pytest.raises(EndError):
        first.train()
    torch.manual_seed(5)
    second = make(tmp_path / "ended")
    torch.rand(7)
    second.train()
    a, b = (checkpoint.load(tmp_path / name / "checkpoints" / "latest.pt") for name in ("straight", "ended"))
    assert all(torch.equal(a["netD"][key], b["netD"][key]) for key in a["netD"])


def test_a_missing_split_is_told_before_training(cifar10: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for i in range(8):
        Image.fromarray(cifar10.images[i].permute(1, 2, 0).numpy()).save(tmp_path / "pictures" / f"{i}.png")
    changes = {"resolution": 32, "data": str(tmp_path / "pictures"), "eval.splits": ["train", "test"]}
    config = preset("sngan-dat-folder").replace(TINY | changes)
    assert preset("sngan-dat-folder").eval.splits == ("train",)
    trainer = build_trainer(config, load_data(config), tmp_path / "run", display=Lines(io.StringIO()))
    with pytest.raises(
        DataError, match=r"(?s)no test split.*the test split; eval.splits=\[\"train\"\] does without"
    ):
        trainer.train()
    assert trainer.done == 0


def test_scores_of_another_kind_are_not_ranked(
    few_images: ImageSet, cifar10_root: Path, tmp_path: Path
) -> None:
    """Going on with other counts: the first score of the new kind is the best of its kind."""
    trainer_of(few_images, cifar10_root, tmp_path / "run").train()
    path = tmp_path / "run" / "checkpoints" / "latest.pt"
    state = checkpoint.load(path)
    state["best"] |= {"rank": 1e9}  # beyond what any KID can reach
    del state["format"]
    checkpoint.save(path, state)
    trainer_of(few_images, cifar10_root, tmp_path / "run", steps=6).train()
    assert checkpoint.load(path)["best"]["rank"] == 1e9
    trainer_of(few_images, cifar10_root, tmp_path / "run", steps=8, **{"eval.fakes": 25}).train()
    best = checkpoint.load(path)["best"]
    assert (best["step"], best["kind"]["fake_count"]) == (8, 25)


@pytest.mark.parametrize("moment", ["reals", "fakes"])
def test_a_stop_is_heeded_while_reals_are_looked_at(
    moment: str, few_images: ImageSet, cifar10_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features of reals come first: they are kept, so that the next process needs not make them again."""
    seen: list[int] = []

    def slow(weights: str | None) -> Extractor:
        class Slow(torch.nn.Module):
            def forward(self, images: Tensor) -> Tensor:
                seen.append(len(images))
                if len(seen) == {"reals": 1, "fakes": 3}[moment]:
                    os.kill(os.getpid(), signal.SIGTERM)
                return images.float().mean((2, 3)) / 255

        return Extractor("means", Slow(), "none")

    extractors.FACTORIES["means"] = slow
    changes = {"steps": 2, "eval.batch_size": 30, "eval.splits": ["train", "test"]}
    trainer = trainer_of(few_images, cifar10_root, tmp_path / "run", **changes)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert seen == {"reals": [30], "fakes": [30, 30, 20]}[moment]
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "scoring with 20 samples ..." in log
    assert "stopped by SIGTERM while being scored after 2 steps" in log
    again = trainer_of(few_images, cifar10_root, tmp_path / "run", **changes)
    again.train()
    assert [r["by"] for r in records(tmp_path / "run")] == ["train", "train"]
    assert seen[-1] == 20
    assert len(seen) == {"reals": 4, "fakes": 4}[moment]


def test_scoring_does_not_change_the_run(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> None:
    states = []
    for every in (1, None):
        trainer = trainer_of(few_images, cifar10_root, tmp_path / str(every), **{"eval.every": every})
        before = torch.get_rng_state()
        trainer.train()
        assert torch.equal(before, torch.get_rng_state())
        assert all(module.training for module in trainer.netG.modules())
        states.append(trainer.netG.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_a_resumed_run_has_the_same_scores(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> None:
    changes = {"steps": 6, "checkpoint_every": 3, "ema": 0.5}
    trainer_of(few_images, cifar10_root, tmp_path / "straight", **changes).train()
    first = trainer_of(few_images, cifar10_root, tmp_path / "stopped", **changes)
    batches: Any = first._batches
    batch = batches.batch

    def ends(step: int) -> Tensor:
        if step == 5:
            raise InterruptedError
        result: Tensor = batch(step)
        return result

    batches.batch = ends
    with pytest.raises(InterruptedError):
        first.train()
    assert records(tmp_path / "stopped")[-1]["step"] == 4, (
        "after the checkpoint of step 3, so it is made again"
    )
    trainer_of(few_images, cifar10_root, tmp_path / "stopped", **changes).train()
    straight, stopped = records(tmp_path / "straight"), records(tmp_path / "stopped")
    assert [r["weights"] for r in straight] == ["ema"] * 6
    for r in straight + stopped:
        del r["seconds"]
    assert straight == stopped


def test_what_is_missing_is_told_before_training(
    few_images: ImageSet, cifar10_root: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(few_images, cifar10_root, tmp_path / "run", **{"eval.extractor": "vgg"})
    with pytest.raises(ConfigError, match="unknown extractor 'vgg'"):
        trainer.train()
    assert trainer.done == 0
    assert not (tmp_path / "run" / "stats.jsonl").exists()
    with pytest.raises(
        ConfigError, match=r"eval.metrics of cifar10 may be fid, kid, is, precision-recall; got \['modes'\]"
    ):
        trainer_of(few_images, cifar10_root, tmp_path / "run2", **{"eval.metrics": ["modes"]})
    with pytest.raises(ConfigError, match=r"eval.metrics of gaussians may be modes; got \['kid'\]"):
        trainer_of(None, cifar10_root, tmp_path / "run3", "mlp-gaussians")


def test_modes_of_the_mixture(tmp_path: Path) -> None:
    settings = {"eval.metrics": ["modes"], "eval.extractor": "means"}
    trainer_of(None, tmp_path, tmp_path / "run", "mlp-dat-gaussians", **settings).train()
    found = records(tmp_path / "run")
    assert [(r["step"], r["split"], r["extractor"]) for r in found] == [
        (2, "train", "none"),
        (4, "train", "none"),
    ]
    assert set(found[0]["scores"]) == {"modes", "high_quality", "kl"}


# --- fastdat eval ------------------------------------------------------------------------------------------------


def test_eval_repeats_the_score_of_the_last_step(run: Path) -> None:
    before = records(run)
    code, out, _ = invoke("eval", run, "--fakes", 20, "--reals", 30)
    assert code == 0
    assert out.count("[means]") == 2
    after = records(run)
    assert after[: len(before)] == before
    for old, new in zip(before[-1:], after[-1:], strict=True):
        assert (old["step"], old["scores"]) == (new["step"], new["scores"])


def test_eval_with_other_settings(run: Path) -> None:
    code, _, _ = invoke(
        "eval",
        run,
        "--checkpoint",
        "best",
        "--splits",
        "test",
        "--metrics",
        "fid",
        "--fakes",
        10,
        "--seed",
        3,
        "--device",
        "cpu",
    )
    assert code == 0
    last = records(run)[-1]
    assert (last["split"], list(last["scores"]), last["fake_count"], last["seed"]) == ("test", ["fid"], 10, 3)
    assert last["real_count"] == 10_000, "all of the test images"


def test_eval_refuses(run: Path, tmp_path: Path) -> None:
    def message(*arguments: object) -> str:
        code, _, err = invoke("eval", *arguments)
        assert code == 2
        return err

    assert "is no run folder: it has no config.yaml" in message(tmp_path)
    assert "there is no checkpoint" in message(run, "--checkpoint", tmp_path / "x.pt")
    assert "eval.metrics must be one of" in message(run, "--metrics", "sfid")
    assert "does not exist" in message(run, "--data", tmp_path / "nowhere", "--fakes", 4)
    (run / "checkpoints" / "best.pt").unlink()
    assert "has no best checkpoint" in message(run, "--checkpoint", "best")


# --- fastdat sample ----------------------------------------------------------------------------------------------


def test_sample_grid_and_folder(run: Path, tmp_path: Path) -> None:
    assert invoke("sample", run, "-n", 6, "--grid", tmp_path / "a" / "grid.png")[0] == 0
    with Image.open(tmp_path / "a" / "grid.png") as grid:
        assert grid.size == (2 + 3 * 34, 2 + 2 * 34)
        first = grid.crop((2, 2, 34, 34)).tobytes()
    assert invoke("sample", run, "-n", 6, "--folder", tmp_path / "b")[0] == 0
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [f"{i:06d}.png" for i in range(6)]
    with Image.open(tmp_path / "b" / "000000.png") as image:
        assert image.tobytes() == first
    assert invoke("sample", run, "-n", 2, "--interpolate", 5, "--grid", tmp_path / "strips.png")[0] == 0
    with Image.open(tmp_path / "strips.png") as strips:
        assert strips.size == (2 + 5 * 34, 2 + 2 * 34)


def test_sample_refuses(run: Path, tmp_path: Path) -> None:
    def message(*arguments: object) -> str:
        code, _, err = invoke("sample", run, *arguments)
        assert code == 2
        return err

    assert "one of them" in message()
    assert "one of them" in message("--grid", "a.png", "--folder", "b")
    assert "takes no labels; got 3" in message("--grid", tmp_path / "a.png", "--label", 3)
    (tmp_path / "file").write_text("")
    assert "cannot write" in message("--grid", tmp_path / "file" / "a.png")


def test_samples_do_not_depend_on_the_batch_size(run: Path) -> None:
    whole = torch.cat(list(load_trained(run, device="cpu").samples(10)))
    parts = torch.cat(list(load_trained(run, device="cpu", settings={"eval.batch_size": 3}).samples(10)))
    torch.testing.assert_close(whole, parts)
    assert not torch.equal(whole, torch.cat(list(load_trained(run, device="cpu").samples(10, seed=1))))


def test_conditional_samples(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> None:
    trainer_of(few_images, cifar10_root, tmp_path / "run", "csngan-dat-cifar10").train()
    trained = load_trained(tmp_path / "run", device="cpu")
    sevens = torch.cat(list(trained.samples(3, label=7)))
    threes = torch.cat(list(trained.samples(3, label=3)))
    assert not torch.equal(sevens, threes)
    assert trained.interpolations(2, 3).shape == (6, 3, 32, 32)
    with pytest.raises(ConfigError, match="takes labels from 0 to 9; got 10"):
        trained.samples(3, label=10)


def test_points_have_one_picture(tmp_path: Path) -> None:
    trainer_of(None, tmp_path, tmp_path / "run", "mlp-dat-gaussians", **{"eval.every": None}).train()
    assert invoke("sample", tmp_path / "run", "-n", 50, "--grid", tmp_path / "points.png")[0] == 0
    code, _, err = invoke("sample", tmp_path / "run", "-n", 50, "--folder", tmp_path / "points")
    assert (code, "take --grid" in err) == (2, True)


def test_the_average_is_what_is_sampled(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> None:
    trainer = trainer_of(few_images, cifar10_root, tmp_path / "run", ema=0.5)
    trainer.train()
    assert trainer.ema is not None
    for ema, net in ((True, trainer.ema.net), (False, trainer.netG)):
        trained = load_trained(tmp_path / "run", device="cpu", ema=ema)
        assert trained.weights == ("ema" if ema else "G")
        for a, b in zip(trained.net.parameters(), net.parameters(), strict=True):
            assert torch.equal(a, b)


def test_a_checkpoint_of_another_run_is_told(run: Path, tmp_path: Path) -> None:
    text = (run / "config.yaml").read_text().replace("ngf: 4", "ngf: 8")
    (run / "config.yaml").write_text(text)
    with pytest.raises(RunFolderError, match="is of another generator than"):
        load_trained(run, device="cpu")


def test_walks_stay_where_noise_lives() -> None:
    a, b = torch.randn(3, 500), torch.randn(3, 500)
    walk = between(a, b, 7)
    torch.testing.assert_close(walk[:, 0], a)
    torch.testing.assert_close(walk[:, -1], b)
    assert (walk.norm(dim=2) / 500**0.5 - 1).abs().max() < 0.15, "a straight line would pass at 0.7"


# --- the running average -----------------------------------------------------------------------------------------


def test_average_of_weights() -> None:
    from fastdat.training.ema import EMA

    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    ema = EMA(net, 0.75)
    old = net[0].weight.detach().clone()
    with torch.no_grad():
        net[0].weight.add_(1)
    net(torch.randn(4, 2))
    ema.update()
    torch.testing.assert_close(ema.net[0].weight, old + 0.25)
    assert torch.equal(ema.net[1].running_mean, net[1].running_mean)
    assert not any(p.requires_grad for p in ema.net.parameters())


class _Loader:
    """Batches as a DataLoader yields them: the last one incomplete."""

    def __init__(self, data: ImageSet, labels: bool) -> None:
        self._data, self._labels = data, labels

    def __iter__(self) -> Iterator[Any]:
        for i in range(0, 10, 4):
            x = self._data.images[i : i + 4].float() / 127.5 - 1
            yield (x, self._data.labels[i : i + 4]) if self._labels else x


@pytest.mark.parametrize("labels", [False, True])
def test_a_mimicry_like_loop(labels: bool, few_images: ImageSet, tmp_path: Path) -> None:
    """netD, netG, optD, optG, a loader, and settings by keyword."""
    from fastdat.nets import (
        ConditionalSNGANDiscriminator,
        ConditionalSNGANGenerator,
        SNGANDiscriminator,
        SNGANGenerator,
    )

    if labels:
        netG: torch.nn.Module = ConditionalSNGANGenerator(32, 10, ngf=4, nz=8)
        netD: torch.nn.Module = ConditionalSNGANDiscriminator(32, 10, ndf=4)
    else:
        netG, netD = SNGANGenerator(32, ngf=4, nz=8), SNGANDiscriminator(32, ndf=4)
    trainer = Trainer(
        netD=netD,
        netG=netG,
        optD=torch.optim.Adam(netD.parameters(), 2e-4, betas=(0.0, 0.9)),
        optG=torch.optim.Adam(netG.parameters(), 2e-4, betas=(0.0, 0.9)),
        batches=_Loader(few_images, labels),
        outdir=tmp_path / "run",
        classes=10 if labels else 0,
        display=Lines(io.StringIO()),
        steps=3,
        n_dis=2,
        batch_size=4,
        nz=8,
        compile=False,
        samples=6,
        tensorboard=False,
    )
    trainer.train()
    assert trainer.done == 3


class Endless:
    """The same batch for ever."""

    def __init__(self, batch: Tensor) -> None:
        self.batch_of_loader = batch

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            yield self.batch_of_loader


def test_a_short_last_batch_is_left_out(tmp_path: Path) -> None:
    parts = [torch.full((4, 2), 1.0), torch.full((4, 2), 2.0), torch.full((2, 2), 3.0)]
    batches = LoaderBatches(parts, 4, torch.device("cpu"))
    assert [batches.batch(step)[0, 0].item() for step in range(5)] == [1, 2, 1, 2, 1]
    batches.close()
    assert batches.batch(9)[0, 0].item() == 1


def test_what_is_no_loader_is_told(few_images: ImageSet, tmp_path: Path) -> None:
    def refused(batches: Any, message: str, **changes: Any) -> None:
        settings = {k: v for k, v in TINY.items() if not k.startswith("eval") and k not in ("ngf", "ndf")}
        settings |= changes
        netG, netD = torch.nn.Linear(8, 2), torch.nn.Linear(2, 1)
        opts = [torch.optim.SGD(net.parameters(), 0.1) for net in (netG, netD)]
        with pytest.raises(ConfigError, match=message):
            Trainer(
                netG, netD, *opts, batches, outdir=tmp_path, display=Lines(io.StringIO()), **settings
            ).train()

    refused(3, "have a method batch\\(step\\), or be a DataLoader; got int")
    refused([torch.zeros(5, 2)], "yields batches of 5, but config.batch_size is 4")
    refused([torch.zeros(3, 2)], "yields batches of 3, but config.batch_size is 4")
    refused(Endless(torch.zeros(3, 2)), "yields batches of 3, but config.batch_size is 4")
    refused([], "the loader yields nothing")
    refused(
        [torch.zeros(4, 2, dtype=torch.uint8)],
        r"must yield floating-point images in \[-1, 1\], got torch.uint8",
    )
    refused([[1, 2]], "must yield floating-point images .* got int")
    refused([torch.zeros(4, 2)], "eval.every is set, but no evaluator", **{"eval.every": 1})
