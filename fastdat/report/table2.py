"""The paper's Table II, and which scores may be compared with it."""

from __future__ import annotations

from fastdat.report.runs import RunRecord
from fastdat.report.score_table import INCEPTION, Kind

COLUMNS = ("SNGAN", "SNGAN-DAT", "SSGAN", "SSGAN-DAT", "InfoMaxGAN", "InfoMaxGAN-DAT")
"""Columns of Table II, from left to right."""

_MODELS = {"sngan": "SNGAN", "ssgan": "SSGAN", "infomaxgan": "InfoMaxGAN"}
_DATASETS = {
    "lsun-bedroom": "LSUN-Bedroom",
    "tiny-imagenet": "Tiny-ImageNet",
    "stl10": "STL-10",
    "cifar100": "CIFAR-100",
    "cifar10": "CIFAR-10",
}

SCORES: dict[tuple[str, str | None], dict[str, tuple[float, ...]]] = {
    ("fid", "train"): {
        "lsun-bedroom": (27.26, 24.10, 23.54, 20.43, 35.69, 34.21),
        "tiny-imagenet": (47.14, 43.40, 40.83, 38.98, 41.81, 38.83),
        "stl10": (42.62, 41.05, 39.84, 35.64, 42.39, 40.77),
        "cifar100": (23.70, 21.09, 22.43, 19.86, 21.36, 20.46),
        "cifar10": (19.75, 17.93, 16.75, 15.34, 17.71, 17.69),
    },
    ("kid", "train"): {
        "lsun-bedroom": (0.0313, 0.0286, 0.0267, 0.0246, 0.0373, 0.0369),
        "tiny-imagenet": (0.0411, 0.0391, 0.0355, 0.0337, 0.0371, 0.0323),
        "stl10": (0.0391, 0.0380, 0.0388, 0.0336, 0.0418, 0.0384),
        "cifar100": (0.0158, 0.0160, 0.0155, 0.0147, 0.0152, 0.0140),
        "cifar10": (0.0149, 0.0133, 0.0125, 0.0116, 0.0134, 0.0128),
    },
    ("fid", "test"): {
        "lsun-bedroom": (86.10, 83.50, 85.10, 82.20, 87.14, 86.17),
        "tiny-imagenet": (52.29, 48.72, 45.79, 44.63, 47.26, 43.97),
        "stl10": (62.03, 60.41, 56.56, 52.71, 61.93, 59.07),
        "cifar100": (28.48, 26.49, 27.61, 24.67, 26.36, 25.28),
        "cifar10": (24.19, 22.46, 21.23, 19.45, 22.03, 21.88),
    },
    ("kid", "test"): {
        "lsun-bedroom": (0.0324, 0.0296, 0.0298, 0.0275, 0.0388, 0.0375),
        "tiny-imagenet": (0.0415, 0.0393, 0.0371, 0.0341, 0.0372, 0.0332),
        "stl10": (0.0445, 0.0428, 0.0403, 0.0352, 0.0443, 0.0404),
        "cifar100": (0.0164, 0.0161, 0.0160, 0.0148, 0.0153, 0.0142),
        "cifar10": (0.0150, 0.0142, 0.0128, 0.0118, 0.0139, 0.0141),
    },
    ("is", None): {  # none for LSUN-Bedroom
        "tiny-imagenet": (8.17, 8.44, 8.63, 8.95, 8.80, 9.18),
        "stl10": (8.34, 8.45, 8.59, 8.72, 8.28, 8.57),
        "cifar100": (7.66, 7.82, 7.74, 8.09, 8.02, 8.06),
        "cifar10": (7.84, 7.97, 8.13, 8.25, 8.01, 8.07),
    },
}
"""Table II: (score, split) -> data set -> one number for each column."""

RESOLUTIONS = {"lsun-bedroom": 64, "tiny-imagenet": 64, "stl10": 48, "cifar100": 32, "cifar10": 32}
_TEST_REALS = {"stl10": 8_000}  # the others have 10,000
_FULL_COUNT = 50_000  # images

CAVEAT = (
    "The paper's numbers are comparable only with scores by Inception of 50,000 fakes against 50,000 reals (train) or "
    "the whole test set of 10,000 (8,000 for STL-10). The paper does not say how many fakes its test scores use; "
    "its released code uses 10,000, and fastdat's default is 50,000: the table says which of the two a test score has."
)
_TEST_FAKES = {_FULL_COUNT: "fastdat's default", 10_000: "as in the released code"}

PARTS = tuple(SCORES)
"""The parts of Table II, each as (score, split)."""


def column(run: RunRecord) -> str | None:
    """The column of Table II that a run belongs to, such as ``"SNGAN-DAT"``; None if the table has no such column."""
    model = _MODELS.get(str(run.config.get("model")))
    if model is None or run.config.get("dataset") not in _DATASETS or run.other_attack or run.regularizers:
        return None
    return f"{model}-DAT" if run.attacks else model


def model_name(run: RunRecord) -> str:
    """The name of the model in the configuration."""
    return str(run.config.get("model", "nets of its own"))


def dataset_name(run: RunRecord) -> str:
    """The paper's name of the data set; the configuration's name if the paper does not use the data set."""
    key = str(run.config.get("dataset", "data of its own"))
    return _DATASETS.get(key, key)


def data_name(run: RunRecord) -> str:
    """``CIFAR-10 at 32``; points have no resolution."""
    size = None if run.config.get("model") == "mlp" else run.config.get("resolution")
    return dataset_name(run) if size is None else f"{dataset_name(run)} at {size}"


def number(run: RunRecord, name: str, split: str | None) -> float | None:
    """The paper's score for a run's model and data set; None if the table has no such score."""
    model, row = column(run), SCORES.get((name, split), {}).get(str(run.config.get("dataset")))
    return None if model is None or row is None else row[COLUMNS.index(model)]


def objections(kind: Kind, dataset: str) -> list[str]:
    """The reasons why a score of this kind is not comparable with the paper's; empty if it is comparable."""
    reasons, known = [], dict(kind.protocol)
    if known.get("data", dataset).partition(" ")[0] != dataset:
        reasons.append(f"reals of {known['data']}, not of {dataset}")
    size = str(RESOLUTIONS.get(dataset))
    if known.get("resolution", size) != size:
        reasons.append(f"at {known['resolution']} pixels, not {size}")
    if kind.extractor != INCEPTION:
        reasons.append(f"extractor is {kind.extractor}, not Inception")
    fakes = tuple(_TEST_FAKES) if kind.split == "test" else (_FULL_COUNT,)
    if kind.fakes not in fakes:
        reasons.append(f"{_count_text(kind.fakes)} fakes, not {_FULL_COUNT:,}")
    if kind.split is not None:
        reals = _TEST_REALS.get(dataset, 10_000) if kind.split == "test" else _FULL_COUNT
        if kind.reals != reals:
            reasons.append(f"{_count_text(kind.reals)} reals, not {reals:,}")
    return reasons


def counted_fakes(kind: Kind) -> str:
    """Of a comparable test score, which of the two known numbers of fakes it has; empty for other scores."""
    if kind.split != "test" or kind.fakes not in _TEST_FAKES:
        return ""
    return f"{kind.fakes:,} fakes, {_TEST_FAKES[kind.fakes]}"


def _count_text(count: int | None) -> str:
    return "an unknown number of" if count is None else f"{count:,}"
