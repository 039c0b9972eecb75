"""Figs. 1, 8 and 9: what is trained and measured, and that each number stands at its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdat.data import ImageSet
from fastdat.experiments import catalogue
from fastdat.experiments.images import adversarial_share, pgd_flip
from fastdat.experiments.outcome import Runs
from fastdat.training.build import build_trainer
from fastdat.util.errors import ConfigError
from tests.experiments.image_runs import OPTIONS, images
from tests.experiments.monitored_runs import SHORT, ended, given, on_noise, shorten, written

# --- what is trained -------------------------------------------------------------------------------------------------


def test_they_are_in_the_catalogue() -> None:
    for name in ("fig1", "fig8", "fig9", "lipschitz"):
        assert callable(catalogue.load(name).run)


def test_fig1_has_the_models_without_attack_and_fig8_both() -> None:
    full = {arm.name: arm.config for arm in adversarial_share.arms_of("fig8", quick=False)}
    assert list(full) == [
        name + end
        for name in ("DCGAN, gan", "DCGAN, lsgan", "DCGAN, wgan", "SNGAN, hinge")
        for end in ("", ", DAT")
    ]
    for name, config in full.items():
        model, loss = name.removesuffix(", DAT").split(", ")
        assert (config.model, config.loss, config.steps) == (model.lower(), loss, 100_000)
        assert config.dat.attacks == name.endswith("DAT")
        assert (config.ngf, config.eval.every) == (None, None)
    assert [a.name for a in adversarial_share.arms_of("fig1", quick=False)] == list(full)[::2]
    quick = {arm.name: arm.config for arm in adversarial_share.arms_of("fig1", quick=True)}
    assert {config.ndf for config in quick.values()} == {16}
    fig8 = {arm.name: arm.config for arm in adversarial_share.arms_of("fig8", quick=True)}
    assert all(fig8[name] == config for name, config in quick.items()), (
        "so that Fig. 8 finds the runs of Fig. 1"
    )
    search = adversarial_share.FULL_SEARCH
    assert (search.every, search.count) == (5_000, 512)


def test_fig8_takes_the_runs_of_fig1_if_they_lie_beside_it(tmp_path: Path) -> None:
    where = adversarial_share.runs_folder
    fig1, fig8 = tmp_path / "fig1", tmp_path / "fig8"
    assert where("fig1", fig1) == fig1
    assert where("fig8", fig8) == fig8, "there is none"
    (fig1 / "runs").mkdir(parents=True)
    assert where("fig8", fig8) == fig1
    assert where("fig8", tmp_path / "mine") == tmp_path / "mine"
    (fig8 / "runs").mkdir(parents=True)
    assert where("fig8", fig8) == fig8, "it has begun runs of its own"


def test_fig9_with_and_without_dat() -> None:
    plain, dat = pgd_flip.arms_of(quick=False)
    assert (plain.config.dataset, plain.config.steps, plain.config.ngf, plain.config.dat.attacks) == (
        "mnist",
        500,
        None,
        False,
    )
    same = [{key: v for key, v in arm.config.to_dict().items() if key != "dat"} for arm in (plain, dat)]
    assert same[0] == same[1]
    assert dat.config.dat.attacks


# --- Figs. 1 and 8 ---------------------------------------------------------------------------------------------------


def share_lines(*shares: float | None, eligible: float = 0.5) -> list[dict[str, Any]]:
    """Measurements at steps 200, 400, ..., and lines between them."""
    lines: list[dict[str, Any]] = []
    for i, share in enumerate(shares, 1):
        lines.append({"step": 200 * i - 50, "seconds": 1.0})
        measured = {"eligible_midpoint": eligible, "eligible_zero": 0.25}
        if share is not None:
            measured |= {
                "share_rms_midpoint": share,
                "share_linf_midpoint": share / 2,
                "share_rms_zero": share / 4,
            }
        lines.append({"step": 200 * i, "seconds": 2.0} | measured)
    return lines


def test_fig1_takes_its_mean_over_the_steps_that_all_runs_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = [ended("c", share_lines(1.0, 0.5, 0.25)), ended("c", share_lines(None, 0.25, 0.75), 1)]
    given(monkeypatch, adversarial_share, {"DCGAN, lsgan": runs})
    outcome = adversarial_share.run_fig1(replace(OPTIONS, seeds=2, only=("DCGAN, lsgan",)), tmp_path)
    cells = {row.label: row.cells for row in outcome.tables[0].rows}["DCGAN, lsgan"]
    assert cells["step 200"] == Runs((100.0,))
    assert cells["mean"] == Runs((37.5, 50.0))
    assert cells["range"] == Runs((25.0, 50.0))
    (finding,) = outcome.findings
    assert "on average 43.8" in finding
    assert "moves by 37.5" in finding


def test_fig8_compares_each_model_with_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given(
        monkeypatch,
        adversarial_share,
        {
            "DCGAN, gan": [ended("a", share_lines(0.5, 0.75)), ended("a", share_lines(0.25, 0.25), 1)],
            "DCGAN, gan, DAT": [
                ended("b", share_lines(0.125, 0.125)),
                ended("b", share_lines(0.25, 0.125), 1),
            ],
            "DCGAN, lsgan": [ended("c", share_lines(0.125, None))],
            "DCGAN, lsgan, DAT": [ended("d", share_lines(0.5, 0.25))],
            "DCGAN, wgan": [ended("e", [], diverged=True)],
            # Of what NaN ended nothing is shown: neither in a mean nor in the figure.
            "DCGAN, wgan, DAT": [
                ended("f", share_lines(None)),
                ended("f", share_lines(0.9, 0.9), 1, diverged=True),
            ],
        },
    )
    outcome = adversarial_share.run_fig8(replace(OPTIONS, seeds=2), tmp_path)
    over, choices, _ = outcome.tables
    cells = {row.label: row.cells for row in over.rows}
    assert cells["DCGAN, gan"] == {
        "step 200": Runs((50.0, 25.0)),
        "step 400": Runs((75.0, 25.0)),
        "mean": Runs((62.5, 25.0)),
        "range": Runs((25.0, 0.0)),
    }
    assert cells["DCGAN, lsgan"]["step 400"] is None
    assert cells["DCGAN, wgan, DAT"]["mean"] is None
    assert cells["DCGAN, wgan, DAT"]["step 200"] is None
    # The last measurement of lsgan found no sample to attack: its share is not that of an earlier step.
    lsgan = {row.label: row.cells for row in choices.rows}["DCGAN, lsgan"]
    assert (lsgan["rms, midpoint"], lsgan["taken for fakes, zero"]) == (None, Runs((25.0,)))
    last = {row.label: row.cells for row in choices.rows}["DCGAN, gan"]
    assert last["rms, midpoint"] == Runs((75.0, 25.0))
    assert last["linf, midpoint"] == Runs((37.5, 12.5))
    assert last["rms, zero"] == Runs((18.75, 6.25))
    assert last["taken for fakes, midpoint"] == Runs((50.0, 50.0))
    assert last["l2, midpoint"] is None
    assert outcome.findings[0] == (
        "The mean share of samples with an adversarial example, over the steps at which both sides were measured, is "
        "lower with DAT for 1 of 2 models."
    )
    assert outcome.findings[1].startswith(
        "DCGAN, gan, mean share of samples with an adversarial example, %: 15.6"
    )
    # lsgan without DAT has no share at step 400, so that only step 200 is compared.
    assert outcome.findings[2].startswith(
        "DCGAN, lsgan, mean share of samples with an adversarial example, %: 50.0 with DAT, 300% higher than 12.5 with"
    )
    gan, lsgan, wgan = outcome.figures[""].axes
    assert [axes.get_title() for axes in (gan, lsgan, wgan)] == ["DCGAN, gan", "DCGAN, lsgan", "DCGAN, wgan"]
    without, with_dat = gan.get_lines()[:2]
    assert (list(without.get_xdata()), list(without.get_ydata())) == ([200, 400], [37.5, 50.0])  # type: ignore[arg-type]
    assert list(with_dat.get_ydata()) == [18.75, 12.5]  # type: ignore[arg-type]
    page = written(outcome, tmp_path)
    assert "# Fig. 8, scaled down" in page
    assert "fastdat reproduce fig8 --quick --seeds 2" in page


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, adversarial_share, pgd_flip)


def test_the_probe_measures_every_norm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, short: None) -> None:
    monkeypatch.setattr(adversarial_share, "QUICK_SEARCH", adversarial_share.Search(2, 6, 2, 2))
    on_noise(monkeypatch, adversarial_share, images())
    outcome = adversarial_share.run_fig1(replace(OPTIONS, only=("gan",), seeds=1), tmp_path)
    assert outcome.seconds > 0
    monkeypatch.setattr(adversarial_share, "QUICK_SEARCH", adversarial_share.Search(2, 6, 2, 9))
    with pytest.raises(ConfigError, match=r"measured with other settings: search\.steps 2 then, 9 now"):
        adversarial_share.run_fig1(replace(OPTIONS, only=("gan",), seeds=1), tmp_path)
    (measured,) = [run for run in outcome.details["shares"] if run["arm"] == "DCGAN, gan"]
    assert [line["step"] for line in measured["measurements"]] == [2, 4]
    for line in measured["measurements"]:
        for threshold in ("midpoint", "zero"):
            shares = [f"share_{norm}_{threshold}" in line for norm in ("rms", "linf", "l2")]
            assert shares == [line[f"eligible_{threshold}"] > 0] * 3
    assert "# Fig. 1, scaled down" in written(outcome, tmp_path)


def test_the_probe_does_not_end_a_training_whose_logits_overflow(tmp_path: Path) -> None:
    """Evaluation-mode logits may be infinite where those of the training are not."""
    (arm,) = [arm for arm in adversarial_share.arms_of("fig1", quick=True) if arm.name == "DCGAN, gan"]
    config = arm.config.replace(SHORT | {"device": "cpu", "compile": False, "steps": 2})
    trainer = build_trainer(config, images(), tmp_path)
    probe = adversarial_share.ShareProbe(adversarial_share.Search(2, 6, 1, 2))
    with torch.no_grad():
        for parameter in trainer.netD.parameters():
            parameter.fill_(1e30)
    numbers = probe(trainer)
    trainer.folder.close()
    assert numbers is not None
    assert "eligible_zero" in numbers
    assert not [name for name in numbers if "midpoint" in name]


# --- Fig. 9 ----------------------------------------------------------------------------------------------------------


def test_fig9_from_training_to_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, short: None) -> None:
    grey = ImageSet(
        "mnist train", images(size=28).images[:, :1], torch.zeros(40, dtype=torch.int64), ("digit",)
    )
    on_noise(monkeypatch, pgd_flip, grey)
    monkeypatch.setattr(pgd_flip, "load_data", lambda config: grey)
    monkeypatch.setattr(pgd_flip, "COUNT", 12)
    monkeypatch.setattr(pgd_flip, "CAP", 3)
    outcome = pgd_flip.run(replace(OPTIONS, seeds=1), tmp_path)
    assert [table.title for table in outcome.tables] == [
        f"PGD steps until D's verdict flips, step {size}/255" for size in (2, 8, 32)
    ]
    first = outcome.tables[0]
    assert {row.label: row.paper for row in first.rows} == {
        "DCGAN": {"K of fakes": 3.2, "K of reals": 3.88},
        "DCGAN-DAT": {},
    }
    assert not first.comparable
    for attack, row in zip(outcome.details["attacks"], first.rows, strict=True):
        for of_side in attack["attacks"][:2]:
            cell, side = row.cells[f"K of {of_side['side']}s"], of_side["side"]
            flip = row.cells[f"{side}s that flip, %"]
            if of_side["eligible"]:
                assert isinstance(cell, Runs)
                assert isinstance(flip, Runs)
                assert cell.values == (of_side["mean_steps"],)
                assert flip.mean == pytest.approx(100 * of_side["flipped"] / of_side["eligible"])
    assert len(outcome.figures[""].axes) == 2
    assert "# Fig. 9, scaled down" in written(outcome, tmp_path)
    again = pgd_flip.run(replace(OPTIONS, seeds=1), tmp_path)
    assert again.tables == outcome.tables, "the same from the finished runs"


def test_diverged_runs_are_not_attacked_and_seeds_keep_their_names() -> None:
    from fastdat.robustness import pgd_steps_to_flip

    assert pgd_flip.attack(ended("a", [], diverged=True), None, "cpu") is None
    x = torch.tensor([0.5, -0.5]).reshape(2, 1, 1, 1)
    flips = {"fake": pgd_steps_to_flip(torch.nn.Flatten(), x, "fake", threshold=0.0)}
    results = [pgd_flip.Attacked(seed, 0.0, x, x, {2 / 255: flips}) for seed in (0, 2)]  # type: ignore[dict-item]
    assert [attack["seed"] for attack in pgd_flip._details({"DCGAN": results})] == [0, 2]


def test_the_picture_shows_eligible_images_above_attacked_ones() -> None:
    from fastdat.robustness import pgd_steps_to_flip

    class Sum(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).sum(1)

    x = torch.tensor([0.5, -0.5, -0.25, 0.25]).reshape(4, 1, 1, 1)
    flips = pgd_steps_to_flip(Sum(), x, "fake", threshold=0.0, step_size=0.25)
    clean, attacked = pgd_flip._rows_of(flips, x)
    assert clean.flatten().tolist() == [-0.5, -0.25, *[1.0] * 8]
    assert attacked.flatten().tolist() == [0.0, 0.0, *[1.0] * 8]
