"""The cells of Table III as settings, and two steps of each arm."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastdat.config import DATConfig
from fastdat.data import ImageSet
from fastdat.experiments.paper_tables import TABLE_III, TABLE_III_ARMS
from fastdat.nets.table3_nets import PHI
from fastdat.regularizers import AR, ASGAN, GP, LP, RFM, ZeroGP
from fastdat.training import ConfigError, preset, table3_config
from fastdat.training.regularization import Regularizers, attack_of
from fastdat.training.table3_config import ARMS, LOSSES
from tests.training.runs import TINY, read_stats, trainer_of

CPU = torch.device("cpu")


def test_every_cell_of_the_paper_has_settings() -> None:
    assert (*TABLE_III_ARMS, "dat-2nd") == ARMS
    assert set(TABLE_III) <= set(LOSSES)
    configs = [table3_config(loss, arm) for loss in LOSSES for arm in ARMS]
    assert len({str(config.to_dict()) for config in configs}) == len(LOSSES) * len(ARMS)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("loss", LOSSES)
def test_what_all_cells_share(loss: str, arm: str) -> None:
    config = table3_config(loss, arm)
    assert (config.model, config.dataset, config.resolution, config.loss) == ("table3", "cifar10", 32, loss)
    assert (config.nz, config.batch_size, config.lr, config.betas) == (128, 64, 1e-4, (0.5, 0.999))
    assert (config.n_dis, config.steps, config.lr_decay, config.ngf, config.ndf) == (
        1,
        100_000,
        "none",
        None,
        None,
    )
    assert config.dat.attacks == arm.startswith("dat")


def test_arms() -> None:
    terms = {"gp": GP(10.0), "lp": LP(10.0), "0gp": ZeroGP("real", 10.0), "rfm": RFM(PHI, 10.0)}
    for arm, term in terms.items():
        assert Regularizers(table3_config("wgan", arm), CPU).terms == (term,)
    assert attack_of(table3_config("gan", "asgan")) == ASGAN()  # one grey level
    assert table3_config("gan", "dat").dat == DATConfig()
    assert table3_config("gan", "datt").dat == DATConfig(clean_weight=1.0)
    assert table3_config("gan", "dat-2nd").dat == DATConfig(second_order=True)
    plain = table3_config("gan", "none")
    assert (plain.regularizers, plain.attack, plain.dat) == ((), None, DATConfig(real=False, fake=False))


@pytest.mark.parametrize(
    ("loss", "of"),
    [
        ("gan", "output"),
        ("lsgan-sigmoid", "output"),
        ("wgan-sigmoid", "output"),
        ("lsgan", "logits"),
        ("wgan", "logits"),
    ],
)
def test_ar_compares_what_the_loss_sees(loss: str, of: str) -> None:
    (term,) = Regularizers(table3_config(loss, "ar"), CPU).terms
    assert isinstance(term, AR)
    assert term.of == of


def test_presets() -> None:
    assert preset("table3-cifar10") == table3_config("gan", "none")
    assert preset("table3-dat-cifar10") == table3_config("gan", "dat")


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="Table III has no loss 'hinge': choose one of gan, lsgan, wgan"):
        table3_config("hinge", "dat")
    with pytest.raises(ConfigError, match="Table III has no arm 'GP': choose one of none, gp"):
        table3_config("gan", "GP")


@pytest.mark.parametrize("arm", ARMS)
def test_two_steps(arm: str, tmp_path: Path) -> None:
    images = ImageSet(
        "noise", torch.randint(256, (12, 3, 32, 32), dtype=torch.uint8), torch.zeros(12).long(), ()
    )
    config = table3_config("lsgan-sigmoid", arm).replace(TINY | {"steps": 2, "log_every": 1, "n_dis": 1})
    trainer_of(config, images, tmp_path / "run").train()
    assert [line["step"] for line in read_stats(tmp_path / "run")] == [1, 2]
