"""The names of scores: short, different, and the plain ones of publications only where a publication uses them."""

from pathlib import Path
from typing import Any

import pytest

from fastdat.report.score_names import ScoreName, score_names
from fastdat.report.score_table import score_series
from tests.report.runs import read_run, scored

LITE = {"extractor": "efficientnet-lite0"}


def names(folder: Path, *records: dict[str, Any]) -> list[ScoreName]:
    return list(score_names([score_series(read_run(folder, *records))]).values())


def test_only_scores_of_inception_have_the_plain_names(tmp_path: Path) -> None:
    """Under any other label stands the extractor."""
    found = names(
        tmp_path,
        scored(1, {"fid": 30.0, "kid": 0.02, "is": 7.0, "precision": 0.5}),
        scored(1, {"fid": 30.0, "kid": 0.5}, split="test", **LITE),
        scored(1, {"modes": 9.0}, extractor="none"),
    )
    assert [(name.label, name.source) for name in found] == [
        ("FID train", ""),
        ("KID train", ""),
        ("IS", ""),
        ("Precision train", "inception-v3-compat"),
        ("FID test", "efficientnet-lite0"),
        ("KID test", "efficientnet-lite0"),
        ("Modes found", ""),
    ]
    assert [name.number for name in found] == [1, 2, 3, 4, 5, 6, 7]
    assert found[4].caveat == "by efficientnet-lite0, so not comparable with published FID"
    assert [name.caveat for name in found if name.source == ""] == [""] * 4


def test_the_inception_score_of_another_extractor_is_no_published_one(tmp_path: Path) -> None:
    (found,) = names(tmp_path, scored(1, {"is": 7.0}, extractor="mine"))
    assert found.caveat == "by mine, so not comparable with published IS"


@pytest.mark.parametrize(
    ("change", "labels"),
    [
        (LITE, ["FID train, inception-v3-compat", "FID train, efficientnet-lite0"]),
        ({"weights": "ema"}, ["FID train, of G", "FID train, of the average of G"]),
        ({"fake_count": 1000}, ["FID train, 50,000 fakes", "FID train, 1,000 fakes"]),
        ({"real_count": 2000}, ["FID train, 50,000 reals", "FID train, 2,000 reals"]),
        (
            {"real_count": 2000, "fake_count": 7},
            ["FID train, 50,000 fakes", "FID train, 7 fakes"],
        ),  # one is enough
        ({"data": "mine"}, ["FID train, cifar10 train", "FID train, mine"]),
        (
            {"data_sha256": "12345678" * 8},  # an image was removed from the folder, say
            ["FID train, images 00000000", "FID train, images 12345678"],
        ),
        ({"resize": "bilinear 96"}, ["FID train", "FID train"]),  # too much for a label: the footnotes differ
    ],
)
def test_labels_of_namesakes_say_what_sets_them_apart(
    tmp_path: Path, change: dict[str, Any], labels: list[str]
) -> None:
    found = names(tmp_path, scored(1, {"fid": 30.0}), scored(1, {"fid": 20.0}, **change))
    assert [name.label for name in found] == labels
    assert [name.source for name in found] == ["", ""]  # the label says it, or it is Inception
    assert found[0].provenance != found[1].provenance


def test_provenance(tmp_path: Path) -> None:
    counts = {"data": "cifar10 test", "fake_count": 1000, "real_count": 10_000, "kid_subsets": 10}
    kid, inception = names(
        tmp_path,
        scored(1, {"is": 7.0}),
        scored(1, {"kid": 0.3}, split="test", weights="ema", kid_subset_size=90, **counts, **LITE),
    )[::-1]
    assert kid.provenance == (
        "1,000 samples of the running average of G against 10,000 reals of cifar10 test at 32 pixels (images "
        "00000000). Features by efficientnet-lite0 (weights 5eefa9b2), resize none. Published KID is by Inception and "
        "not comparable. ± is the standard error of the mean over 10 subsets of 90 images. Less is better."
    )
    assert inception.provenance == (
        "50,000 samples of G. Features by inception-v3-compat (weights 5eefa9b2), resize none. ± is the standard "
        "deviation over 10 splits of the samples. More is better."
    )
    assert (kid.direction, inception.direction) == ("less is better", "more is better")


def test_paths_are_shown_without_their_beginning(tmp_path: Path) -> None:
    config = {"dataset": "folder", "data": "/home/alice/customers/acme/faces"}
    runs = [
        read_run(tmp_path / place, scored(1, {"is": 7.0}), config={**config, "data": config["data"] + place})
        for place in ("", "2")
    ]
    found = list(score_names([score_series(run) for run in runs]).values())
    assert [name.label for name in found] == ["IS, folder .../acme/faces", "IS, folder .../acme/faces2"]


def test_one_subset_has_no_error(tmp_path: Path) -> None:
    (found,) = names(tmp_path, scored(1, {"kid": 0.3}, kid_subsets=1))
    assert "±" not in found.provenance


def test_scores_of_a_users_own(tmp_path: Path) -> None:
    record = {"step": 1, "scores": {"mine": 12345.678}}
    (name,) = names(tmp_path, record)
    assert (name.label, name.direction) == ("mine unknown split", "")
    assert "unknown extractor" in name.provenance


def test_three_namesakes(tmp_path: Path) -> None:
    """The extractor sets the third apart at once; the others need their counts too."""
    found = names(
        tmp_path,
        scored(1, {"fid": 30.0}),
        scored(1, {"fid": 30.0}, fake_count=1000),
        scored(1, {"fid": 30.0}, fake_count=1000, **LITE),
    )
    assert [name.label for name in found] == [
        "FID train, inception-v3-compat, 50,000 fakes",
        "FID train, inception-v3-compat, 1,000 fakes",
        "FID train, efficientnet-lite0",
    ]
