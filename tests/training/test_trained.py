"""The generator of a run, sampled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastdat.data import ImageSet
from fastdat.training import ConfigError, RunFolderError
from fastdat.training.trained import between, load_trained
from tests.training.runs import scored, trainer_of


def test_samples_do_not_depend_on_the_batch_size(run: Path) -> None:
    whole = torch.cat(list(load_trained(run, device="cpu").samples(10)))
    parts = torch.cat(list(load_trained(run, device="cpu", settings={"eval.batch_size": 3}).samples(10)))
    torch.testing.assert_close(whole, parts)
    assert not torch.equal(whole, torch.cat(list(load_trained(run, device="cpu").samples(10, seed=1))))


def test_conditional_samples(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> None:
    trainer_of(scored(cifar10_root, "csngan-dat-cifar10"), few_images, tmp_path / "run").train()
    trained = load_trained(tmp_path / "run", device="cpu")
    sevens = torch.cat(list(trained.samples(3, label=7)))
    threes = torch.cat(list(trained.samples(3, label=3)))
    assert not torch.equal(sevens, threes)
    assert trained.interpolations(2, 4).shape == (2, 4, 3, 32, 32)
    with pytest.raises(ConfigError, match="takes labels from 0 to 9; got 10"):
        trained.samples(3, label=10)


def test_the_average_is_what_is_sampled(few_images: ImageSet, cifar10_root: Path, tmp_path: Path) -> None:
    trainer = trainer_of(scored(cifar10_root, ema=0.5), few_images, tmp_path / "run")
    trainer.train()
    assert trainer.ema is not None
    for ema, net in ((True, trainer.ema.net), (False, trainer.netG)):
        trained = load_trained(tmp_path / "run", device="cpu", ema=ema)
        assert trained.weights == ("ema" if ema else "G")
        for a, b in zip(trained.net.parameters(), net.parameters(), strict=True):
            assert torch.equal(a, b)


def test_a_checkpoint_of_another_run_is_an_error(run: Path) -> None:
    text = (run / "config.yaml").read_text().replace("ngf: 4", "ngf: 8")
    (run / "config.yaml").write_text(text)
    with pytest.raises(
        RunFolderError, match=r"was trained with other settings than .*config\.yaml says: ngf 4 then, 8 now"
    ):
        load_trained(run, device="cpu")


def test_walks_keep_the_length_of_noise() -> None:
    a, b = torch.randn(3, 500), torch.randn(3, 500)
    walk = between(a, b, 7)
    torch.testing.assert_close(walk[:, 0], a)
    torch.testing.assert_close(walk[:, -1], b)
    assert (walk.norm(dim=2) / 500**0.5 - 1).abs().max() < 0.15, "a straight line would pass at 0.7"


def test_a_progress_that_returns_nothing_stops_nothing(run: Path, cifar10_root: Path) -> None:
    """Only False stops: a callback that just notes what it is told is enough."""
    seen: list[tuple[str, int, int]] = []
    settings = {"eval.fakes": 8, "eval.splits": ["train"], "data": str(cifar10_root)}
    trained = load_trained(run, device="cpu", settings=settings)
    records = trained.evaluate(lambda *progress: seen.append(progress))
    assert records is not None
    assert [record["split"] for record in records] == ["train"]
    assert seen[-1][1:] == (8, 8)
