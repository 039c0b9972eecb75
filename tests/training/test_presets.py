"""Presets: the paper's settings, and two tiny steps with DAT of every GAN on images in the size of every data set."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastdat.config import DATConfig
from fastdat.data import DATASETS, ImageSet, load_split
from fastdat.data.mixture import MIXTURES
from fastdat.data.resize import resized
from fastdat.metrics.eval_config import EvalConfig
from fastdat.regularizers import ALP, AR, ASGAN, GP, LP, R1, R2, RFM, RobGAN, ZeroGP
from fastdat.training import PRESETS, ConfigError, preset
from fastdat.training.regularization import Regularizers, attack_of
from tests.slow_cases import slow_except
from tests.training.runs import TINY, read_stats, trainer_of

PAIRS = [name for name, config in PRESETS.items() if config.dat.attacks]
OTHERS = [f"dcgan-{name}-cifar10" for name in ("gp", "lp", "0gp", "ar", "rfm", "alp", "asgan", "robgan")]
RUN = [*PAIRS, *OTHERS]
COUNT = 12
TWO_STEPS = TINY | {
    "ngf": 16,
    "ndf": 64,  # 4 channels in the first block at 48 and 64: a single one may be zero everywhere
    "n_dis": 1,
    "steps": 2,
    "log_every": 1,
}


@pytest.fixture(scope="module")
def photographs(tiny_root: Path) -> ImageSet:
    """A few of Tiny-ImageNet's, 64 pixels: what is resized to the other sets' sizes as their own images are."""
    whole = load_split("tiny-imagenet", tiny_root, "test")
    return ImageSet("photographs", whole.images[:COUNT], whole.labels[:COUNT], whole.classes)


def images_of(dataset: str, resolution: int, photographs: ImageSet) -> ImageSet:
    """Photographs in the size, channels and classes of a data set; a folder of two classes."""
    spec = DATASETS[dataset]
    classes = 2 if spec.classes is None else spec.classes
    pixels = photographs.images.permute(0, 2, 3, 1).numpy()
    if spec.channels == 1:
        pixels = pixels.mean(-1, keepdims=True).astype(np.uint8)
    images = np.stack([resized(image, resolution).transpose(2, 0, 1) for image in pixels])
    labels = torch.arange(COUNT) % max(classes, 1)
    return ImageSet(f"{dataset} train", torch.from_numpy(images), labels, tuple(map(str, range(classes))))


def brings_a_net_or_set(name: str) -> bool:
    """Not where DCGAN meets the same data set, and the net meets CIFAR-10, in another case."""
    config = PRESETS[name]
    return config.model not in ("sngan", "ssgan", "infomaxgan", "csngan") or config.dataset == "cifar10"


@pytest.mark.parametrize("name", slow_except([name for name in RUN if brings_a_net_or_set(name)], RUN))
def test_two_steps(name: str, photographs: ImageSet, tmp_path: Path) -> None:
    config = preset(name).replace(TWO_STEPS)
    data = None if config.dataset in MIXTURES else images_of(config.dataset, config.resolution, photographs)
    trainer = trainer_of(config, data, tmp_path / "run")
    before = [p.detach().clone() for p in (*trainer.netG.parameters(), *trainer.netD.parameters())]
    trainer.train()
    after = [*trainer.netG.parameters(), *trainer.netD.parameters()]
    assert sum(torch.equal(a, b) for a, b in zip(after, before, strict=True)) <= 0.1 * len(before)
    stats = read_stats(tmp_path / "run")
    assert [line["step"] for line in stats] == [1, 2]
    assert all(math.isfinite(value) for line in stats for value in line.values())
    if name in PAIRS:
        assert all(line["delta_rms_real"] > 0 and line["delta_rms_fake"] > 0 for line in stats)
    with Image.open(tmp_path / "run" / "samples" / "step-000002.png") as grid:
        side = 2 * config.resolution + 3 * 2
        assert grid.size == ((400, 400) if data is None else (side, side))
        assert grid.mode == ("RGBA" if data is None else "L" if config.dataset == "mnist" else "RGB")


def test_every_net_meets_every_data_set() -> None:
    """The paper's four families on its five sets (Tables I and II), and more."""
    sets = ("cifar10", "cifar100", "stl10", "tiny-imagenet", "lsun-bedroom")
    pairs = {(config.model, config.dataset) for config in PRESETS.values()}
    assert {(model, data) for model in ("sngan", "ssgan", "infomaxgan", "dcgan") for data in sets} <= pairs
    assert len(PAIRS) == (len(PRESETS) - len(OTHERS)) / 2


@pytest.mark.parametrize("model", ["sngan", "ssgan", "infomaxgan"])
@pytest.mark.parametrize(
    ("dataset", "resolution", "decay"),
    [
        ("cifar10", 32, "linear"),
        ("cifar100", 32, "linear"),
        ("stl10", 48, "linear"),
        ("tiny-imagenet", 64, "none"),
        ("lsun-bedroom", 64, "linear"),
    ],
)
def test_presets_are_table_i(dataset: str, resolution: int, decay: str, model: str) -> None:
    """Each of Table II's rows, of which every column is a model with or without DAT."""
    for suffix, attack in (("", DATConfig(real=False, fake=False)), ("-dat", DATConfig())):
        config = preset(f"{model}{suffix}-{dataset}")
        assert (config.model, config.dataset, config.resolution) == (model, dataset, resolution)
        assert (config.batch_size, config.n_dis, config.steps) == (64, 5, 100_000)
        assert (config.lr, config.betas, config.lr_decay, config.loss) == (2e-4, (0.0, 0.9), decay, "hinge")
        assert (config.ngf, config.ndf, config.nz) == (None, None, 128)
        assert config.dat == attack
        assert ("is" in config.eval.metrics) == (dataset != "lsun-bedroom")


def test_further_presets() -> None:
    fig4 = preset("dcgan-cifar10")
    assert (fig4.loss, fig4.betas, fig4.n_dis, fig4.nz) == ("gan", (0.5, 0.999), 1, 100)
    assert (fig4.batch_size, fig4.lr, fig4.lr_decay, fig4.steps) == (64, 2e-4, "none", 100_000)
    assert preset("dcgan-dat-mnist").resolution == 28
    fig3 = preset("mlp-dat-gaussians")
    assert (fig3.dat.bounds, fig3.nz, fig3.lr, fig3.steps) == (None, 16, 1e-3, 10_000)
    assert (fig3.loss, fig3.betas, fig3.n_dis, fig3.lr_decay) == ("gan", (0.5, 0.999), 1, "none")
    assert (fig3.batch_size, fig3.samples, fig3.log_every) == (64, 1000, 100)
    assert not any(config.dat.attacks for name, config in PRESETS.items() if "-dat-" not in name)


def test_scores_while_training() -> None:
    """After every tenth of the steps, from a fifth of the paper's fakes. No IS for images unlike ImageNet's, nothing
    but modes for points, and no test split of one's own images."""
    both, without_is = ("train", "test"), ("fid", "kid")
    expected = {
        "sngan-cifar10": (10_000, ("fid", "kid", "is"), both),
        "dcgan-dat-tiny-imagenet": (10_000, ("fid", "kid", "is"), both),
        "dcgan-gp-cifar10": (10_000, ("fid", "kid", "is"), both),
        "r3gan-cifar10": (4000, ("fid", "kid", "is"), both),
        "infomaxgan-lsun-bedroom": (10_000, without_is, both),
        "dcgan-mnist": (10_000, without_is, both),
        "csngan-dat-folder": (10_000, without_is, ("train",)),
        "mlp-dat-gaussians": (1000, ("modes",), ("train",)),
    }
    for name, (every, metrics, splits) in expected.items():
        assert preset(name).eval == EvalConfig(every=every, fakes=10_000, metrics=metrics, splits=splits), (
            name
        )


def test_what_table_iii_compares_dat_with() -> None:
    """In place of DAT, on the DCGAN of the plain preset; all else is the same."""
    plain, cpu = preset("dcgan-cifar10"), torch.device("cpu")
    terms = {"gp": GP(), "lp": LP(), "0gp": ZeroGP(), "ar": AR("output"), "rfm": RFM("convs.2"), "alp": ALP()}
    attacks = {"asgan": ASGAN(), "robgan": RobGAN()}
    assert [f"dcgan-{name}-cifar10" for name in (*terms, *attacks)] == OTHERS
    for name, term in terms.items():
        config = preset(f"dcgan-{name}-cifar10")
        assert Regularizers(config, cpu).terms == (term,)
        assert config.replace({"regularizers": []}) == plain
    for name, attack in attacks.items():
        config = preset(f"dcgan-{name}-cifar10")
        assert attack_of(config) == attack
        assert config.replace({"attack": None}) == plain


def test_rfm_looks_at_the_last_hidden_convolution() -> None:
    """Before batch norm: 256 channels, which a norm and the layer of the logits follow."""
    from fastdat.training import build_nets

    _, D = build_nets(preset("dcgan-rfm-cifar10"))
    (rfm,) = Regularizers(preset("dcgan-rfm-cifar10"), torch.device("cpu")).terms
    assert rfm.needs.features == "convs.2"
    layer = D.get_submodule("convs.2")
    assert (layer.out_channels, len(D.convs), len(D.norms)) == (256, 4, 3)  # type: ignore[arg-type]
    seen = []
    for name, module in D.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: seen.append(name))
    D(torch.zeros(2, 3, 32, 32))
    assert seen[seen.index("convs.2") :] == ["convs.2", "norms.2", "convs.3"]


def test_r3gan() -> None:
    """Of the released code's configuration for CIFAR-10, without its adaptive augmentation."""
    plain, dat = preset("r3gan-cifar10"), preset("r3gan-dat-cifar10")
    assert Regularizers(plain.replace({"cosine.regularizers": None}), torch.device("cpu")).terms == (
        R1(0.05),
        R2(0.05),
    )
    assert (plain.loss, plain.nz, plain.batch_size, plain.n_dis) == ("rpgan", 64, 512, 1)
    assert (plain.lr, plain.betas, plain.lr_decay) == (2e-4, (0.0, 0.9), "none")
    cosine = plain.cosine
    assert (cosine.steps, cosine.lr, cosine.beta2, cosine.regularizers) == (None, 5e-5, 0.99, 0.1)
    assert plain.steps == math.ceil(20e6 / 512)
    assert cosine.ema_halflife
    assert math.log(0.5) / math.log(plain.ema) * 512 == pytest.approx(5e6)
    assert dat == plain.replace({"dat.real": True, "dat.fake": True})
    assert plain.dat == DATConfig(real=False, fake=False, bounds=None), "G has no tanh"


def test_unknown_preset() -> None:
    with pytest.raises(
        ConfigError,
        match=r"unknown preset 'sngan'. Did you mean .*sngan-.*\? `fastdat presets` lists all 82",
    ):
        preset("sngan")
