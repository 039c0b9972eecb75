"""Evaluations that several ranks share out give the records of one rank, and end on all ranks together."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastdat.data import ImageSet
from fastdat.data.mixture import IMBALANCED
from fastdat.metrics import EvalConfig, Extractor, ImageEvaluator, ModesEvaluator, extractors
from fastdat.metrics.evaluators import Evaluator, Record, keep_going
from fastdat.training.noise import Noise
from fastdat.training.scoring import score
from fastdat.util.errors import ConfigError, DataError
from fastdat.util.ranks import Ranks
from tests.metrics.helpers import CPU, Colours
from tests.ranks import run

BATCH = 8
ALONE = Ranks()
"""Of an evaluation that one rank makes without the others."""


class WithLogits(nn.Module):
    """Features of :class:`Colours`, and class logits."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.colours = Colours(scale)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.colours(images)
        return features, 5 * features[:, :4].roll(1, 1)


def with_logits(weights: str | None) -> Extractor:
    return Extractor("logits", WithLogits(2.0 if weights else 1.0), "none")


class Painter(nn.Module):
    """A conditional G whose images differ between latents and labels, with a batch norm that must not learn."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 3 * 8 * 8), nn.BatchNorm1d(3 * 8 * 8), nn.Tanh())
        self.labels = nn.Embedding(3, 3 * 8 * 8)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        made: Tensor = (self.net(z) * self.labels(labels).sigmoid()).view(-1, 3, 8, 8)
        return made


def painter() -> Painter:
    torch.manual_seed(5)
    return Painter()


def images(seed: int, count: int) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return ImageSet(f"noise {seed}", pixels, torch.zeros(count, dtype=torch.int64), ("none",))


def settings(**changes: Any) -> EvalConfig:
    """50 fakes in 7 batches against 41 and 23 reals in 6 and 3 batches: all three uneven for 2 or 3 ranks."""
    given: dict[str, Any] = {
        "extractor": "logits",
        "metrics": ("fid", "kid", "is", "precision-recall"),
        "fakes": 50,
        "reals": 41,
        "batch_size": BATCH,
        "kid_subsets": 3,
        "kid_subset_size": 7,
        "is_splits": 3,
    }
    return EvalConfig(**given | changes)


def evaluator(folder: Path, config: EvalConfig, ranks: Ranks | None = None) -> ImageEvaluator:
    return ImageEvaluator(config, {"train": images(1, 60), "test": images(2, 23)}, CPU, folder, ranks)


def scores_of(
    by: Evaluator, config: EvalConfig, ranks: Ranks | None = None, **given: Any
) -> list[Record] | None:
    """Records of the painter's samples."""
    draws = Noise(5, seed=config.seed, device=CPU, classes=3)
    about = {"step": 7, "weights": "ema", "by": "eval"}
    return score(
        by, given.get("net") or painter(), config, draws, about, given.get("progress", keep_going), ranks
    )


def without_time(records: list[Record] | None) -> list[Record]:
    assert records is not None
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


# --- the same records --------------------------------------------------------------------------------------------


def _equal(folder: Path, rank: int, size: int) -> None:
    config, net, ranks = settings(), painter(), Ranks.now()
    expected = scores_of(evaluator(folder / f"alone {rank}", config, ALONE), config, ALONE)
    shared, before = evaluator(folder / "shared", config), torch.get_rng_state()
    Colours.images_seen = 0
    found = scores_of(shared, config, net=net)
    assert without_time(found) == without_time(expected)
    assert [record["real_count"] for record in found or []] == [41, 23]
    assert ranks.all_of(found) == [found] * size, "the times too"
    assert torch.equal(before, torch.get_rng_state())
    assert net.training
    assert net.net[1].num_batches_tracked == 0
    # Of the batches of 8 that one rank makes, each has those whose turn it is; prepare() tries one image for IS.
    whole = [torch.arange(count).split(BATCH)[rank::size] for count in (50, 41, 23)]
    assert Colours.images_seen == 1 + sum(len(batch) for batches in whole for batch in batches)
    # Only rank 0 has reals, and a second evaluator finds them in its cache.
    assert all((reals is None) == bool(rank) for reals in shared._reals.values())
    Colours.images_seen = 0
    again = scores_of(evaluator(folder / "shared", config), config)
    assert without_time(again) == without_time(expected)
    looked_at = (
        0 if rank else 2 * 4
    )  # of each split, to see whether the extractor still gives what is in the cache
    assert Colours.images_seen == 1 + sum(map(len, whole[0])) + looked_at


def _modes(rank: int, size: int) -> None:
    """Points are worked on by rank 0 alone; a stop that another asks for ends it."""
    config = EvalConfig(metrics=("modes",), fakes=300)
    points = IMBALANCED.sample(300, torch.Generator().manual_seed(0))
    made = []

    def fakes(count: int) -> Iterator[Tensor]:
        for batch in points[:count].split(128):
            made.append(len(batch))
            yield batch

    expected = without_time(ModesEvaluator(config, IMBALANCED, ALONE)(fakes))
    made.clear()
    assert without_time(ModesEvaluator(config, IMBALANCED)(fakes)) == expected
    assert made == ([] if rank else [128, 128, 44])
    made.clear()
    stops = ModesEvaluator(config, IMBALANCED)(fakes, lambda what, done, total: rank == 0 or done < 128)
    assert stops is None
    assert sum(Ranks.now().all_of(len(made))) <= 2


class AllSamples:
    """An evaluator of one's own, which does not know of ranks."""

    def prepare(self) -> None:
        return None

    def __call__(self, fakes: Any, progress: Any) -> list[Record] | None:
        made = torch.cat(list(fakes(50))).double()
        if progress("samples", 50, 50) is False:
            return None
        return [
            {
                "split": "train",
                "scores": {"mean": made.mean().item()},
                "of": len(made),
                "rank": Ranks.now().rank,
            }
        ]


def _own(rank: int, size: int) -> None:
    config = settings()
    (expected,) = scores_of(AllSamples(), config, ALONE) or []
    (found,) = scores_of(AllSamples(), config) or []
    assert found == expected | {"rank": 0}
    assert found["of"] == 50
    stopped = scores_of(AllSamples(), config, progress=lambda what, done, total: rank != 1)
    assert stopped is None, "on all ranks, although only one stopped"


# --- the end -----------------------------------------------------------------------------------------------------


def _stops(folder: Path, who: int, what: str, rank: int, size: int) -> None:
    config, told = settings(), []

    def progress(of: str, done: int, total: int) -> bool:
        told.append(of)
        return not (rank == who and of == what)

    assert scores_of(evaluator(folder / "cache", config), config, progress=progress) is None
    assert told[-1] == what, "nothing of what comes after it"
    assert all(order == told for order in Ranks.now().all_of(told)), "all are told the same"
    kept = {"reals (train)": 0, "reals (test)": 1, "fakes": 2}[what]
    if rank == 0:
        assert len(list((folder / "cache").glob("reals/*"))) == kept
    Ranks.now().barrier()
    assert scores_of(evaluator(folder / "cache", config), config) is not None


def _fails(folder: Path, rank: int, size: int) -> None:
    class Breaks(WithLogits):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            if rank == 1 and len(images) == 2:  # the last batch of fakes, the seventh, is that of rank 0 or 1
                raise DataError("out of luck")
            return super().forward(images)

    extractors.FACTORIES["logits"] = lambda weights: Extractor("logits", Breaks(), "none")
    config = settings(metrics=("kid",), batch_size=16)
    with pytest.raises(DataError, match="out of luck") as caught:
        scores_of(evaluator(folder / "cache", config), config)
    assert rank == 1 or "rank 1" in "".join(caught.value.__notes__)
    extractors.FACTORIES["logits"] = with_logits
    assert scores_of(evaluator(folder / "cache", config), config) is not None, "they still agree"


def _unprepared(folder: Path, rank: int, size: int) -> None:
    """Each prepares from the files of its own machine."""
    weights = str(folder / f"weights-{rank}")
    folder.mkdir(exist_ok=True)
    if rank == 0:
        Path(weights).write_text("")
    config = settings(weights=weights)
    with pytest.raises(ConfigError, match=r"eval.weights: there is no file .*weights-1"):
        evaluator(folder / "cache", config).prepare()
    other = {"train": images(1, 60), "test": images(2 + rank, 23)}
    with pytest.raises(ConfigError, match="the hash of the test images of rank 1 is not that of rank 0"):
        ImageEvaluator(settings(), other, CPU, folder / "cache").prepare()
    extractors.FACTORIES["logits"] = lambda weights: with_logits("other" if rank else None)
    with pytest.raises(
        ConfigError, match="the hash of the weights of logits of rank 1 is not that of rank 0"
    ):
        evaluator(folder / "cache", settings()).prepare()
    net = painter()
    if rank == 1:
        net.net[1].running_mean[3] += 1e-6
    with pytest.raises(
        ConfigError,
        match=r"the hash of the generator of rank 1 is not that of rank 0: .* All ranks must score the same",
    ):
        scores_of(AllSamples(), settings(), net=net)


# --- the tests: few groups of processes, since it takes seconds to start one ---------------------------------------


def _two(folder: Path, rank: int, size: int) -> None:
    extractors.FACTORIES["logits"] = with_logits  # of this process
    for part in (_equal, _fails, _unprepared):
        part(folder / part.__name__, rank, size)
    _modes(rank, size)
    _own(rank, size)


def _three(folder: Path, rank: int, size: int) -> None:
    extractors.FACTORIES["logits"] = with_logits  # of this process
    _equal(folder / "_equal", rank, size)
    for who, what in ((2, "reals (train)"), (1, "reals (test)"), (2, "fakes"), (0, "fakes")):
        _stops(folder / f"{who} {what}", who, what, rank, size)


@pytest.mark.parametrize(("size", "function"), [(2, _two), pytest.param(3, _three, marks=pytest.mark.slow)])
def test_evaluations_of_several_ranks(size: int, function: Any, tmp_path: Path) -> None:
    """Their records are those of one rank; a stop, an error or other files on one of them end all."""
    run(size, tmp_path, partial(function, tmp_path))
    assert len(list((tmp_path / "_equal" / "shared" / "reals").iterdir())) == 2
