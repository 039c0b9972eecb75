"""The generator of a run, sampled."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fastdat.data import ImageSet
from fastdat.training import ConfigError, RunFolderError
from fastdat.training.trained import MOST_SAMPLES, Trained, between, load_trained
from tests.training.runs import scored, tiny, trainer_of


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


class Inputs(nn.Module):
    """Its samples are what it is given: z, and the label."""

    def forward(self, z: Tensor, *labels: Tensor) -> Tensor:
        return torch.cat([z, *(label[:, None].float() for label in labels)], 1)


def trained_of(name: str = "csngan-dat-folder", names: tuple[str, ...] = (), classes: int = 3) -> Trained:
    config = tiny(name, nz=2, **{"eval.batch_size": 4})
    return Trained(Inputs(), "G", config, 5, classes, torch.device("cpu"), names)


def test_a_class_is_given_by_its_name_or_its_number() -> None:
    named = trained_of(names=("cat", "ship", "0"))
    assert [named.class_number(given) for given in ("ship", "cat", "2", "1", "0")] == [1, 0, 2, 1, 2]
    for trained, given, message in (
        (named, "3", "there is no class '3'. Give its number, 0 to 2, or its name: cat, ship, 0"),
        (
            named,
            "shop",
            "there is no class 'shop'. Did you mean ship? Give its number, 0 to 2, or its name: cat, ship, 0",
        ),
        (trained_of(), "-1", "there is no class '-1'. Give its number, 0 to 2"),
        (trained_of("mlp-gaussians", classes=0), "0", "model mlp has no classes; got class 0"),
    ):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            trained.class_number(given)


def test_what_a_generator_is_given() -> None:
    """The same latents for every class; random classes where none is asked for, one of them for a whole walk."""
    trained = trained_of()
    batches = list(trained.samples(10, seed=3))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    of_two = torch.cat(list(trained.samples(10, seed=3, label=2)))
    assert torch.equal(torch.cat(batches)[:, :2], of_two[:, :2])
    assert of_two[:, 2].tolist() == [2] * 10
    assert set(torch.cat(batches)[:, 2].tolist()) == {0, 1, 2}
    walks = trained.interpolations(6, 3, seed=3)
    assert walks.shape == (6, 3, 3)
    assert torch.equal(walks[..., 2], walks[:, :1, 2].expand(6, 3))
    assert len(set(walks[:, 0, 2].tolist())) > 1
    of_one = trained.interpolations(6, 3, seed=3, label=1)
    assert torch.equal(of_one[..., :2], walks[..., :2])
    assert of_one[..., 2].unique().tolist() == [1]
    ends = torch.cat([walks[:, 0, :2], walks[:, 2, :2]])
    assert len(ends.unique(dim=0)) == 12, "no end is that of another walk"
    torch.testing.assert_close(walks[..., :2], between(ends[:6], ends[6:], 3))


def test_what_cannot_be_sampled() -> None:
    points = trained_of("mlp-gaussians", classes=0)
    assert next(points.samples(MOST_SAMPLES)).shape == (4, 2)
    with pytest.raises(
        ConfigError, match=r"^1,000,001 samples are more .*; the most are 1,000,000\. Draw more with"
    ):
        points.samples(MOST_SAMPLES + 1)
    for label, trained, takes in ((0, points, "no labels"), (-1, trained_of(), "labels from 0 to 2")):
        with pytest.raises(ConfigError, match=f"takes {takes}; got {label}$"):
            trained.interpolations(1, 2, label=label)


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
