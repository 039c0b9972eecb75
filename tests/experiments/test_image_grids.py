"""Figs. 5, 11 and 12: grids side by side from equal z, each under its own title."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fastdat.experiments.catalogue import Options
from fastdat.experiments.images import fig5_images, fig11, image_study, thin_runs
from fastdat.experiments.images.grid_pairs import Panel, draw_pairs, panel, samples_of
from fastdat.experiments.images.image_study import DIVERGED, read, train_all
from fastdat.experiments.outcome import Column, ResultTable, Row, Runs
from fastdat.experiments.points.fig5_points import PointsPart
from fastdat.experiments.training_origin import Origin
from fastdat.metrics import extractors, register_extractor
from fastdat.training.trained import load_trained
from fastdat.util.errors import RunFolderError
from tests.experiments.image_runs import OPTIONS, ended, images, tiny_arm
from tests.training.runs import means


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cheap extractor in thin runs, and synthetic images in place of CIFAR-10."""
    monkeypatch.setattr(extractors, "FACTORIES", dict(extractors.FACTORIES))
    register_extractor("means", means)
    monkeypatch.setenv("FASTDAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(image_study, "load_data", lambda config: images(80))
    monkeypatch.setattr(thin_runs, "WIDTH", 4)
    cheaper = replace(thin_runs.THIN_EVAL, extractor="means", fakes=20, reals=30)
    monkeypatch.setattr(thin_runs, "THIN_EVAL", cheaper)


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def shown(figure: Figure, index: int) -> Tensor:
    """The pixels of a panel (H, W, 3)."""
    return torch.as_tensor(figure.axes[index].get_images()[0].get_array())


def test_grids_are_from_equal_z(tmp_path: Path) -> None:
    # So small a rate leaves both nets as they began, with the weights of the same seed: equal z give equal images.
    arms = [tiny_arm("a", lr=1e-9, steps=1), tiny_arm("b", "dcgan-dat-cifar10", lr=1e-9, steps=1)]
    found = train_all(arms, 1, OPTIONS, tmp_path)
    a, b = (samples_of(found[name][0], "cpu") for name in ("a", "b"))
    assert a is not None
    assert b is not None
    assert a.shape == (64, 3, 32, 32)
    other = torch.cat(list(load_trained(found["a"][0].folder).samples(64, seed=1)))
    assert (a - b).norm() < 1e-3 * (a - other).norm()


def test_a_run_that_diverged_before_its_first_checkpoint_has_no_images(tmp_path: Path) -> None:
    arm = tiny_arm("wild", lr=1e30, **{"checkpoints.every": 100})
    (run,) = train_all([arm], 1, OPTIONS, tmp_path)["wild"]
    assert panel("wild", [run], "cpu") == Panel("wild (diverged)", None)
    (run.folder / DIVERGED).unlink()
    with pytest.raises(RunFolderError):  # a run that should have one
        samples_of(read("wild", run.folder, run.config), "cpu")
    assert panel("not trained", [], "cpu").images is None


def test_panels_stand_row_by_row_under_their_titles() -> None:
    black, white = torch.full((4, 3, 2, 2), -1.0), torch.full((4, 3, 2, 2), 1.0)
    figure = draw_pairs([[Panel("p", black), Panel("q", white)], [Panel("r", None), Panel("s", black)]])
    assert titles(figure) == ["p", "q", "r", "s"]
    # Two images a row with 2 pixels of white between, doubled: 2 * (2 + 2) + 2 = 10, times 2.
    assert shown(figure, 0).shape == (20, 20, 3)
    assert shown(figure, 0)[4, 4].tolist() == [0, 0, 0]
    assert shown(figure, 1)[4, 4].tolist() == [255, 255, 255]
    assert figure.axes[2].get_images() == []
    assert [text.get_text() for text in figure.axes[2].texts] == ["no images"]
    tops = [axes.get_subplotspec().rowspan.start for axes in figure.axes]  # type: ignore[union-attr]
    assert tops == [0, 0, 1, 1]


# --- Fig. 11 ---------------------------------------------------------------------------------------------------------


def test_fig11_quick_shows_both_sides_and_their_kid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fig11, "QUICK_STEPS", 2)
    monkeypatch.setattr(fig11, "QUICK", {"ngf": 4, "ndf": 4, "batch_size": 4, "n_dis": 1})
    outcome = fig11.run(OPTIONS, tmp_path)
    assert titles(outcome.figures[""]) == ["SSGAN, CIFAR-10", "SSGAN-DAT, CIFAR-10"]
    (table,) = outcome.tables
    assert list(table.rows[0].cells) == ["SSGAN", "SSGAN-DAT"]
    for side, name in (("SSGAN", "ssgan-cifar-10-0"), ("SSGAN-DAT", "ssgan-dat-cifar-10-0")):
        run = read(side, tmp_path / "runs" / name, fig11.arms_of(True)[0].config)
        assert table.rows[0].cells[side] == Runs((run.scores[-1]["scores"]["kid"],))
    assert shown(outcome.figures[""], 0).tolist() != shown(outcome.figures[""], 1).tolist()
    assert "scaled down" in outcome.title
    assert not table.comparable


@pytest.mark.parametrize("quick", [True, False])
def test_fig11_compiles_only_long_runs(quick: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def found(arms: Any, seeds: int, options: Options, folder: Path) -> Any:
        asked.append(options.compile)
        return {}

    monkeypatch.setattr(fig11, "train_all", found)
    fig11.run(Options(quick=quick), tmp_path)
    assert asked == [not quick]


def test_fig11_full_is_table_ii_on_four_data_sets() -> None:
    arms = {arm.name: arm.config for arm in fig11.arms_of(quick=False)}
    assert list(arms) == [
        f"{side}, {dataset}"
        for dataset in ("CIFAR-10", "CIFAR-100", "STL-10", "LSUN-Bedroom")
        for side in ("SSGAN", "SSGAN-DAT")
    ]
    assert [config.dataset for config in arms.values()][::2] == [
        "cifar10",
        "cifar100",
        "stl10",
        "lsun-bedroom",
    ]
    for name, config in arms.items():
        assert (config.model, config.steps, config.n_dis, config.ngf) == ("ssgan", 100_000, 5, None)
        assert config.dat.attacks == ("-DAT" in name)
    assert fig11.FIGURES == {"": ("cifar10", "cifar100", "stl10"), "-lsun": ("lsun-bedroom",)}


def test_fig11_full_draws_only_what_was_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def found(arms: Any, *args: Any) -> Any:
        return {arm.name: (ended(arm.name, [], config=arm.config),) for arm in arms}

    monkeypatch.setattr(fig11, "train_all", found)
    monkeypatch.setattr(fig11, "panel", lambda title, runs, device: Panel(title, torch.zeros(4, 3, 2, 2)))
    outcome = fig11.run(Options(quick=False, compile=False, only=("STL", "LSUN")), tmp_path)
    assert titles(outcome.figures[""]) == ["SSGAN, STL-10", "SSGAN-DAT, STL-10"]
    assert titles(outcome.figures["-lsun"]) == ["SSGAN, LSUN-Bedroom", "SSGAN-DAT, LSUN-Bedroom"]
    (table,) = outcome.tables
    assert table.comparable
    assert {row.label: row.paper["SSGAN-DAT"] for row in table.rows} == {
        "CIFAR-10": 15.34,
        "CIFAR-100": 19.86,
        "STL-10": 35.64,
        "LSUN-Bedroom": 20.43,
    }


# --- Fig. 5 ----------------------------------------------------------------------------------------------------------


def no_points(options: Options, folder: Path) -> PointsPart:
    assert options.only == ()
    table = ResultTable("points", "arm", (Column("modes"),), (Row("DAT", {"modes": 1.5}),))
    numbers = {"kl": 0.5}
    return PointsPart(
        table, ("On points.",), ("Points.",), Figure(), Origin(("of the points",)), {"iterations": 3}, numbers
    )


def test_fig5_quick_has_both_methods_with_both_losses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fig5_images, "QUICK_STEPS", 2)
    monkeypatch.setattr(fig5_images, "run_points", no_points)
    outcome = fig5_images.run(OPTIONS, tmp_path)
    assert titles(outcome.figures[""]) == [
        "0-GP, WGAN loss of the logits",
        "DAT, WGAN loss of the logits",
        "0-GP, WGAN loss of their sigmoid",
        "DAT, WGAN loss of their sigmoid",
    ]
    assert set(outcome.figures) == {"", "-points"}
    table = outcome.tables[0]
    run = read("", tmp_path / "runs" / "dat-wgan-sigmoid-0", fig5_images.arms_of(True)[0].config)
    assert table.rows[1].cells["DAT"] == Runs((run.scores[-1]["scores"]["kid"],))
    assert table.rows[0].paper == {"0-GP": 43.06, "DAT": 25.67}
    assert not table.comparable
    assert "On points." in outcome.findings
    assert (outcome.config["points"], outcome.details["points"]) == ({"iterations": 3}, {"kl": 0.5})
    assert outcome.origin.commits == (*run.origin.commits, "of the points")


@pytest.mark.parametrize("quick", [True, False])
def test_fig5_runs_are_those_of_table_iii(quick: bool) -> None:
    arms = {arm.name: arm.config for arm in fig5_images.arms_of(quick)}
    assert {name: config.loss for name, config in arms.items()} == {
        "0-GP, wgan": "wgan",
        "DAT, wgan": "wgan",
        "0-GP, wgan-sigmoid": "wgan-sigmoid",
        "DAT, wgan-sigmoid": "wgan-sigmoid",
    }
    for name, config in arms.items():
        assert [term.name for term in config.regularizers] == (["0gp"] if name.startswith("0-GP") else [])
        assert config.dat.attacks == name.startswith("DAT")
        assert (config.model, config.lr, config.betas, config.n_dis) == ("table3", 1e-4, (0.5, 0.999), 1)
        assert (config.steps, config.ngf) == ((1_000, 4) if quick else (100_000, None))
