"""Figs. 1, 8 and 9 and the steepness of D: what is trained and measured, and that each number stands at its place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdat.data import ImageSet
from fastdat.experiments import catalogue, outcome_files
from fastdat.experiments.images import adversarial_share, image_study, lipschitz_study, pgd_flip
from fastdat.experiments.images.image_study import Arm, Trained
from fastdat.experiments.outcome import Outcome, Runs
from fastdat.training import preset
from fastdat.training.build import build_trainer
from fastdat.util.errors import ConfigError
from tests.experiments.image_runs import OPTIONS, TINY, images

SHORT = {key: value for key, value in TINY.items() if not key.startswith("eval.")} | {"eval.every": None}


def ended(arm: str, lines: Sequence[dict[str, Any]], seed: int = 0, *, diverged: bool = False) -> Trained:
    """A run with these lines of stats.jsonl, of which no file exists."""
    config = preset("dcgan-cifar10").replace({"steps": 400})
    return Trained(arm, seed, Path("nowhere") / arm, config, tuple(lines), (), diverged)


def given(monkeypatch: pytest.MonkeyPatch, module: Any, runs: dict[str, list[Trained]]) -> None:
    """Let the experiment find these runs instead of training."""

    def found(arms: Sequence[Arm], *_: Any, **__: Any) -> dict[str, tuple[Trained, ...]]:
        return {arm.name: tuple(runs[arm.name]) for arm in arms}

    monkeypatch.setattr(module, "train_all", found)


def written(outcome: Outcome, folder: Path) -> str:
    """The page, after all files were written."""
    outcome_files.write(outcome, folder)
    record = json.loads((folder / f"{outcome.name}.json").read_text())
    assert str(folder) not in json.dumps(record), "no paths"
    return outcome_files.markdown(record)


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


def test_fig9_and_the_steepness() -> None:
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
    arms = {arm.name: arm.config for arm in lipschitz_study.arms_of(quick=False)}
    assert [term.name for term in arms["DCGAN, 0-GP"].regularizers] == ["0gp"]
    assert arms["DCGAN, second-order DAT"].dat.second_order
    assert not arms["DCGAN, DAT"].dat.second_order
    assert all(
        (c.monitor.every, c.monitor.latent, c.monitor.pgd) == (100, False, False) for c in arms.values()
    )
    assert arms["DCGAN, DAT, sign per sample"].dat.reduction == "sample"
    assert [name for name in arms if arms[name].dat.reduction == "sample"] == ["DCGAN, DAT, sign per sample"]
    assert [arm.name for arm in lipschitz_study.arms_of(quick=True)] == list(arms)[:4]
    for quick in lipschitz_study.arms_of(quick=True):
        assert (quick.config.ngf, quick.config.monitor.samples, quick.config.steps) == (16, 128, 600)


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
    """Runs of four steps of tiny nets."""

    def thin(config: Any, steps: int, **_: Any) -> Any:
        return config.replace(SHORT | {"steps": 4})

    for module in (adversarial_share, lipschitz_study, pgd_flip):
        monkeypatch.setattr(module, "thin", thin)


def on_noise(monkeypatch: pytest.MonkeyPatch, module: Any, data: ImageSet) -> None:
    """Train on ``data`` instead of images from a folder."""
    monkeypatch.setattr(module, "train_all", lambda *a, **k: image_study.train_all(*a, images=data, **k))


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


# --- steepness -------------------------------------------------------------------------------------------------------


def steep_lines(scale: float, fraction: float | None) -> list[dict[str, Any]]:
    lines = []
    for step, more in ((100, 1.0), (200, 3.0)):
        numbers = {
            f"lipschitz_{p}_{w}": scale * more * (1 + i + 10 * j)
            for i, p in enumerate(("real", "fake", "between"))
            for j, w in enumerate(("mean", "q95", "max"))
        }
        numbers |= {"sigma_max": scale * 5, "sigma_mean": scale * 2}
        # Real and fake apart, and neither as the share of the attack.
        numbers |= {"penalty_case_real": scale * more / 10, "penalty_case_fake": scale * more / 5}
        lowered = {} if fraction is None else {"penalty_fraction": fraction * more}
        lines += [
            {"step": step - 50, "seconds": 1.0, **lowered},
            {"step": step, "seconds": 2.0, **numbers, **lowered},
        ]
    return lines


def close(*values: float) -> Any:
    """Runs of nearly these values."""

    class Close:
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Runs) and other.values == pytest.approx(values)

    return Close()


def test_steepness_stands_at_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given(
        monkeypatch,
        lipschitz_study,
        {
            "DCGAN, no attack": [ended("a", steep_lines(1.0, None))],
            "DCGAN, 0-GP": [ended("b", steep_lines(0.5, None))],
            "DCGAN, DAT": [ended("c", steep_lines(0.25, 0.25)), ended("c", steep_lines(0.75, 0.125), 1)],
            "DCGAN, second-order DAT": [ended("d", steep_lines(2.0, 0.0625), diverged=True)],
        },
    )
    outcome = lipschitz_study.run(OPTIONS, tmp_path)
    end, over, diverged = outcome.tables
    cells = {row.label: row.cells for row in end.rows}
    dat = cells["DCGAN, DAT"]
    assert dat["reals, mean"] == Runs((0.75, 2.25))
    assert dat["fakes, 95 %"] == Runs((0.75 * 12, 2.25 * 12))
    assert dat["between, greatest"] == Runs((0.75 * 23, 2.25 * 23))
    assert (dat["sigma, greatest"], dat["sigma, mean"]) == (Runs((1.25, 3.75)), Runs((0.5, 1.5)))
    assert cells["DCGAN, second-order DAT"]["reals, mean"] is None, "it has no last step"
    means = {row.label: row.cells for row in over.rows}
    assert means["DCGAN, DAT"]["fakes, mean"] == Runs((1.0, 3.0))
    dat = means["DCGAN, DAT"]  # scales 0.25 and 0.75, times 1 and 3
    assert dat["reals in the penalty case, %"] == close(5.0, 15.0)
    assert dat["fakes in the penalty case, %"] == close(10.0, 30.0)
    assert dat["fakes in the penalty case, least, %"] == close(5.0, 15.0)
    assert dat["reals in the penalty case, least, %"] == close(2.5, 7.5)
    assert dat["objective lowered by the attack, %"] == Runs((50.0, 25.0))
    assert means["DCGAN, no attack"]["objective lowered by the attack, %"] is None
    assert means["DCGAN, no attack"]["fakes in the penalty case, %"] == close(40.0), "any D can be asked"
    assert set(means["DCGAN, second-order DAT"].values()) == {None}, "NaN has ended it"
    assert [row.label for row in diverged.rows] == ["DCGAN, second-order DAT"]
    assert len(outcome.findings) == 4, "three places and the penalty case"
    assert outcome.findings[0] == (
        "DCGAN, mean input gradient, reals, last step: 3.00 with no attack; 1.50 with 0-GP (50% lower); 1.50 ± 1.06 (2 "
        "runs) with DAT (50% lower)."
    )
    assert outcome.findings[-1] == (
        "DCGAN, samples in the penalty case, mean over the training: no attack 20.0 % of the reals and 40.0 % of the "
        "fakes; 0-GP 10.0 % of the reals and 20.0 % of the fakes; DAT 10.0 ± 7.1 (2 runs) % of the reals and 20.0 ± "
        "14.1 (2 runs) % of the fakes. It is most of the reals and most of the fakes in 0 of 3 arms."
    )
    axes = outcome.figures[""].axes
    curve = axes[1].get_lines()[2]
    assert (list(curve.get_xdata()), list(curve.get_ydata())) == ([100, 200], [1.0, 3.0])  # type: ignore[arg-type]
    assert [len(panel.get_lines()) for panel in axes] == [3] * 6, "three arms have not diverged"
    assert "scaled down: a thin DCGAN" in written(outcome, tmp_path)


def test_the_record_keeps_few_points_of_each_curve_and_the_last_one() -> None:
    points = [[step, 0.5] for step in range(100, 100_100, 100)]
    kept = lipschitz_study._thinned(points)
    assert len(kept) == 200
    assert (kept[0], kept[-1]) == ([500, 0.5], [100_000, 0.5])
    assert lipschitz_study._thinned(points[:7]) == points[:7]
    assert lipschitz_study._thinned([]) == []


def test_the_monitor_of_the_study_is_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, short: None) -> None:
    on_noise(monkeypatch, lipschitz_study, images())
    monkeypatch.setattr(lipschitz_study, "EVERY", 2)
    monkeypatch.setattr(lipschitz_study, "QUICK_SAMPLES", 5)
    outcome = lipschitz_study.run(replace(OPTIONS, only=("DCGAN, DAT",), seeds=1), tmp_path)
    (row,) = outcome.tables[0].rows
    assert all(isinstance(cell, Runs) for cell in row.cells.values())
    assert all(isinstance(cell, Runs) for cell in outcome.tables[1].rows[0].cells.values())
    assert [step for step, _ in outcome.details["curves"]["DCGAN, DAT"][0]["sigma_max"]] == [2, 4]
