"""A replayed iteration gives the numbers of the plain one: shown with a tape in the place of CUDA graphs."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastdat.data import ImageSet
from fastdat.training import TrainConfig, Trainer, replay
from fastdat.training.replay import ReplayedIteration
from tests.slow_cases import slow_except
from tests.tape import Tape
from tests.training.own_nets import own_trainer
from tests.training.runs import (
    OWN_NETS,
    EndError,
    assert_same,
    read_log,
    results,
    resumable,
    silent,
    tiny,
    trainer_of,
)

Make = Callable[[Path], Trainer]
#: Of one epoch, 25 batches, in the middle of the seventh iteration. Checkpoints after every second step.
SETTINGS: dict[str, Any] = {"n_dis": 4, "steps": 8}


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """Lets the trainers of a test record tapes; they are listed here."""
    made: list[Tape] = []

    def recorder(device: torch.device, config: TrainConfig) -> Tape | None:
        if not config.cuda_graph:
            return None
        made.append(Tape())
        return made[-1]

    monkeypatch.setattr(replay, "recorder_for", recorder)
    return made


def both(name: str, data: ImageSet | None, folder: Path, **changes: Any) -> tuple[Trainer, Trainer]:
    """A plain run and a taped one with these settings, trained, whose results are the same to the last bit."""
    config = resumable(name, **{**SETTINGS, **changes})
    plain = trainer_of(config.replace({"cuda_graph": False}), data, folder / "plain")
    taped = trainer_of(config, data, folder / "taped")
    for trainer in (plain, taped):
        trainer.train()
    assert_same(results(folder / "plain"), results(folder / "taped"))
    assert not isinstance(plain.iteration, ReplayedIteration)
    return plain, taped


def graphs_of(trainer: Trainer) -> int:
    assert isinstance(trainer.iteration, ReplayedIteration)
    return trainer.iteration.graphs


FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "sngan": ("sngan-dat-cifar10", {}),
    "sngan, no average": ("sngan-dat-cifar10", {"ema": 0.0, "flip": False}),
    "sngan, no attack": ("sngan-cifar10", {"lr_decay": "none"}),
    "ssgan": ("ssgan-dat-cifar10", {}),
    "infomaxgan": ("infomaxgan-dat-cifar10", {"batch_size": 5}),
    "dcgan": ("dcgan-dat-cifar10", {"n_dis": 5}),
    "conditional": ("csngan-dat-cifar10", {}),
    "second order": ("sngan-dat-cifar10", {"dat.second_order": True, "dat.steps": 2}),
    "microbatch": ("sngan-dat-cifar10", {"microbatch": 3}),
    "augmented": ("csngan-dat-cifar10", {"augment": "diffaug"}),
    "G attacked": ("dcgan-dat-cifar10", {"dat_generator": "second_order", "n_dis": 2}),
    "another attack": ("dcgan-dat-cifar10", {"attack": {"name": "asgan"}}),
    "regularizers": (
        "dcgan-dat-cifar10",
        {
            "regularizers": [{"name": name} for name in ("dragan", "r2", "alp", "bcr", "diggan", "maxgp")],
            "n_dis": 2,
        },
    ),
    "r3gan": ("r3gan-dat-cifar10", {"ngf": 8, "ndf": 8, "cosine.beta2": None}),
}
QUICK = ("sngan", "ssgan", "dcgan", "conditional", "augmented", "G attacked", "regularizers")


@pytest.mark.parametrize("case", slow_except(QUICK, FAMILIES))
def test_replayed_runs_equal_plain_ones(
    case: str, few_images: ImageSet, tmp_path: Path, tapes: list[Tape]
) -> None:
    """With rates that decay, running averages, flips, half-full meters, an epoch's end, samples and checkpoints."""
    name, changes = FAMILIES[case]
    _, taped = both(name, few_images, tmp_path, **changes)
    assert graphs_of(taped) == 1
    assert len(tapes[-1].operations) == 1, "one recording, after three iterations"
    assert "an iteration is one CUDA graph from now on" in read_log(tmp_path / "taped")


def test_points_from_a_mixture(tmp_path: Path, tapes: list[Tape]) -> None:
    _, taped = both("mlp-dat-gaussians", None, tmp_path, flip=False)
    assert graphs_of(taped) == 1


@pytest.mark.slow
def test_regularizers_in_turn_have_a_graph_for_each_kind_of_iteration(
    few_images: ImageSet, tmp_path: Path, tapes: list[Tape]
) -> None:
    """Their draws are inputs, their states stay in place, and weights that move are read from tensors.

    Every third D step has the first one, which is at the places 0, 1 or 2 of an iteration of four, and 0 means 3 too.
    """
    terms = [
        {"name": "gp", "weight": 2.0, "every": 3},
        {"name": "lecam", "weight": 0.1},
        {"name": "ar1", "weight": 0.5},
    ]
    changes = {"cosine.regularizers": 0.1, "cosine.lr": 1e-5, "lr_decay": "none"}
    _, taped = both("sngan-dat-cifar10", few_images, tmp_path, regularizers=terms, steps=16, **changes)
    assert graphs_of(taped) == 3


def test_compiled_steps_on_the_tape(
    few_images: ImageSet, tmp_path: Path, tapes: list[Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python around compiled graphs, which runs once; with aot_eager torch's operations are left to the tape."""
    compiled = torch.compile

    def visible(
        function: Any = None, *, fullgraph: bool = False, dynamic: bool | None = None, **_: Any
    ) -> Any:
        return compiled(function, backend="aot_eager", fullgraph=fullgraph, dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", visible)
    torch.compiler.reset()
    _, taped = both("dcgan-dat-cifar10", few_images, tmp_path, compile=True, **{"dat.second_order": True})
    assert graphs_of(taped) == 1
    torch.compiler.reset()


def test_a_resume_is_exact(few_images: ImageSet, tmp_path: Path, tapes: list[Tape]) -> None:
    """Also in the process that goes on without graphs, and back."""
    config = resumable("csngan-dat-cifar10", **SETTINGS)
    trainer_of(config.replace({"cuda_graph": False}), few_images, tmp_path / "whole").train()
    for captured, end in ((True, 5), (False, 7), (True, 100)):
        trainer = trainer_of(config.replace({"cuda_graph": captured}), few_images, tmp_path / "run")
        with pytest.raises(EndError) if end < 100 else nullcontext():
            ending(trainer, end).train()
    assert_same(results(tmp_path / "whole"), results(tmp_path / "run"))
    assert [len(tape.operations) for tape in tapes] == [1, 0], (
        "5 iterations, and 2 after the checkpoint of step 6"
    )


def ending(trainer: Trainer, step: int) -> Trainer:
    """``trainer``, which ends suddenly before the iteration after ``step`` steps."""
    run = trainer.iteration.run

    def ended(now: int) -> None:
        if now == step:
            raise EndError
        run(now)

    trainer.iteration.run = ended  # type: ignore[method-assign]
    return trainer


def breaking(trainer: Trainer, at: int) -> Trainer:
    """``trainer``, one of whose weights becomes NaN before the iteration after ``at`` steps, once."""
    run, left = trainer.iteration.run, [at]

    def broken(step: int) -> None:
        if step in left:
            left.remove(step)
            next(trainer.netD.parameters()).data.fill_(math.nan)
        run(step)

    trainer.iteration.run = broken  # type: ignore[method-assign]
    return trainer


def addresses(trainer: Trainer) -> list[int]:
    """Of all that an iteration changes: nets, the average, the optimizers' states, meters."""
    assert trainer.ema is not None
    tensors = [*trainer.netG.state_dict().values(), *trainer.netD.state_dict().values()]
    tensors += trainer.ema.net.state_dict().values()
    for optimizer in (trainer.optG, trainer.optD):
        tensors += [value for state in optimizer.state.values() for value in state.values()]
        tensors += [group["lr"] for group in optimizer.param_groups]
    tensors += [
        of.sum for meter in (trainer.state.meter_d, trainer.state.meter_g) for of in meter._sums.values()
    ]
    return [tensor.data_ptr() for tensor in tensors]


def test_a_rollback_is_exact_and_everything_stays_where_it_is(
    few_images: ImageSet, tmp_path: Path, tapes: list[Tape]
) -> None:
    """The graph is not made again."""
    config = resumable(**SETTINGS, log_every=1, on_nan="rollback")
    plain = breaking(trainer_of(config.replace({"cuda_graph": False}), few_images, tmp_path / "plain"), at=5)
    plain.train()
    taped = breaking(trainer_of(config, few_images, tmp_path / "taped"), at=5)
    where: list[list[int]] = []
    iterate = taped._iterate

    def watched() -> None:
        iterate()
        where.append(addresses(taped))

    taped._iterate = watched  # type: ignore[method-assign]
    taped.train()
    assert "back to step 4, retry 1 of 3" in read_log(tmp_path / "taped")
    assert_same(results(tmp_path / "plain"), results(tmp_path / "taped"))
    assert len(where) == 5 + 4
    assert all(found == where[0] for found in where)
    assert len(tapes[-1].operations) == 1
    assert "made anew" not in read_log(tmp_path / "taped")


def moved(trainer: Trainer) -> None:
    weight = next(trainer.netD.parameters())
    weight.data = weight.data.clone()


def reloaded(trainer: Trainer) -> None:
    trainer.optD.load_state_dict(trainer.optD.state_dict())


def evaluated(trainer: Trainer) -> None:
    trainer.netG.eval()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (moved, "lies elsewhere in memory"),
        pytest.param(reloaded, "is another tensor", marks=pytest.mark.slow),
        pytest.param(evaluated, ".training is False", marks=pytest.mark.slow),
    ],
)
def test_what_moves_elsewhere_is_noticed(
    change: Callable[[Trainer], None], words: str, few_images: ImageSet, tmp_path: Path, tapes: list[Tape]
) -> None:
    """After the fifth iteration; the run goes on as a plain one would."""
    config = resumable(**{**SETTINGS, "steps": 10})
    for kind, captured in (("plain", False), ("taped", True)):
        trainer = trainer_of(config.replace({"cuda_graph": captured}), few_images, tmp_path / kind)
        iterate = trainer._iterate

        def watched(iterate: Callable[[], None] = iterate, trainer: Trainer = trainer) -> None:
            if trainer.done == 5:
                change(trainer)
            iterate()

        trainer._iterate = watched  # type: ignore[method-assign]
        trainer.train()
    assert_same(results(tmp_path / "plain"), results(tmp_path / "taped"))
    assert f"{words}" in read_log(tmp_path / "taped")
    assert "the CUDA graph of an iteration is made anew" in read_log(tmp_path / "taped")
    assert [len(tape.operations) for tape in tapes] == [2]


class WaitingD(nn.Module):
    """Looks at a value, as no graph can."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 32 * 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1)).flatten()
        return logits if logits.sum().item() < 1e9 else -logits


def test_a_net_that_waits_for_the_device_trains_without_a_graph(
    few_images: ImageSet, tmp_path: Path, tapes: list[Tape]
) -> None:
    for kind, captured in (("plain", False), ("taped", True)):
        torch.manual_seed(0)
        G, D = nn.Sequential(nn.Linear(8, 3 * 32 * 32), nn.Unflatten(1, (3, 32, 32))), WaitingD()
        optimizers = [torch.optim.Adam(net.parameters(), 1e-3, fused=True) for net in (G, D)]
        config = TrainConfig().replace({**OWN_NETS, "steps": 6, "cuda_graph": captured})
        Trainer(G, D, *optimizers, few_images, config, tmp_path / kind, display=silent()).train()
    assert_same(results(tmp_path / "plain"), results(tmp_path / "taped"))
    log = read_log(tmp_path / "taped")
    assert "iterations are not captured as a CUDA graph, and go on as before" in log
    assert "_local_scalar_dense.default waits for the device" in log
    assert len(tapes[-1].operations) == 1, "it is not tried again"


def test_more_kinds_than_graphs_run_as_they_are(
    few_images: ImageSet, tmp_path: Path, tapes: list[Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "KINDS", 1)
    terms = [{"name": "r1", "every": 3}]
    _, taped = both("dcgan-dat-cifar10", few_images, tmp_path, regularizers=terms, n_dis=2, steps=14)
    assert graphs_of(taped) == 1


def test_what_stands_in_the_way_is_said(few_images: ImageSet, tmp_path: Path, tapes: list[Tape]) -> None:
    def log_of(name: str, trainer: Trainer) -> str:
        trainer.train()
        assert not isinstance(trainer.iteration, ReplayedIteration)
        return read_log(tmp_path / name)

    own = partial(own_trainer, few_images)
    config = TrainConfig().replace({**OWN_NETS, "steps": 4})
    assert "the rate of SGD moves" in log_of("sgd", own(tmp_path / "sgd", config)[0])
    config = tiny("dcgan-dat-cifar10", **{"cosine.beta2": 0.9})
    log = log_of("beta2", trainer_of(config, few_images, tmp_path / "beta2"))
    assert "not captured as a CUDA graph: cosine.beta2 moves a number of Adam" in log
    assert not any(tape.operations for tape in tapes)


def test_nothing_is_captured_on_the_cpu_or_without_compiled_steps() -> None:
    cpu = torch.device("cpu")
    assert replay.recorder_for(cpu, TrainConfig()) is None
    for changes in ({"compile": False}, {"cuda_graph": False}):
        assert replay.recorder_for(torch.device("cuda"), TrainConfig().replace(changes)) is None
