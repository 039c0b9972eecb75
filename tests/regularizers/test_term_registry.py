"""Terms from plain mappings and back, and what is said of a mapping that describes none."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch
import yaml

from fastdat.regularizers import ALP, CR, R1, RFM, LeCam, ZeroGP
from fastdat.regularizers.lecam import LeCamSettings
from fastdat.regularizers.term_registry import ATTACKS, TERMS, make_term, parse_terms, plain, read_term
from fastdat.util.errors import ConfigError
from fastdat.util.settings import FieldTypeError
from tests.regularizers.test_term_values import Flip

NEEDED: dict[str, dict[str, Any]] = {
    "rfm": {"path": "conv2"},
    "gradient_penalty": {"at": "both", "norm": "one-sided"},
}
OTHER: dict[str, Any] = {
    "at": "fake",
    "norm": "zero",
    "of": "output",
    "path": "block.3",
    "augment": "color,cutout",
    "lengths": [0.3, 7.0],
    "batch": None,
    "iterations": 2,
    "every": 16,
    "start": 12,
}


def test_has_every_name() -> None:
    names = "gp lp r1 r2 0gp dragan gradient_penalty ar rfm alp ar1 ar2 cr bcr lecam diggan maxgp san"
    assert list(TERMS) == names.split()
    assert list(ATTACKS) == ["asgan", "robgan"]


@pytest.mark.parametrize("name", TERMS)
def test_a_term_survives_yaml_and_json_exactly(name: str) -> None:
    written = plain(read_term({"name": name, **NEEDED.get(name, {})}))
    changed = {
        key: value if key == "name" else OTHER.get(key, value / 3 if isinstance(value, float) else value)
        for key, value in written.items()
    }
    for values in (written, changed):
        description = read_term(values)
        assert plain(description) == values
        assert read_term(yaml.safe_load(yaml.safe_dump(values))) == description
        assert read_term(json.loads(json.dumps(values))) == description
        assert hash(read_term(values)) == hash(description)
    assert read_term(changed) != read_term(written)


@pytest.mark.parametrize("name", TERMS)
def test_makes_the_term_of_that_name(name: str) -> None:
    description = read_term({"name": name, "every": 3, **NEEDED.get(name, {})})
    term = make_term(description)
    assert type(term) is TERMS[name]
    assert (term.name, term.every) == (name, 3)
    moving = torch.tensor(1.0)
    scheduled = make_term(description, moving)
    before = float(scheduled.weight)
    moving.fill_(4.0)
    assert float(scheduled.weight) == 4 * before


def test_every_lecam_is_a_new_one() -> None:
    description = read_term({"name": "lecam", "decay": 0.5})
    one, other = make_term(description), make_term(description)
    assert isinstance(one, LeCam)
    assert one is not other
    assert one.settings == LeCamSettings(decay=0.5) == read_term(one)


def test_reads_a_list_in_its_order() -> None:
    values = [{"name": "r1", "gamma": 1, "every": 16}, {"name": "lecam"}, ZeroGP("fake")]
    assert parse_terms(values) == (R1(1.0, 16), LeCamSettings(), ZeroGP("fake"))
    assert parse_terms(()) == ()


MISTAKES: list[tuple[Any, type[Exception], str]] = [
    (
        {"name": "DRAGN"},
        ConfigError,
        "regularizers[0].name is unknown: 'DRAGN'. Did you mean dragan? There are",
    ),
    ({"name": "wgangp"}, ConfigError, "There are: gp, lp, r1, r2, 0gp, dragan"),
    ({"gamma": 1}, ConfigError, "regularizers[0] needs the name of a regularizer, for example {name: r1"),
    ("r1", FieldTypeError, "regularizers[0] must be a mapping with a name, for example {name: r1"),
    (
        {"name": "r1", "gama": 1},
        ConfigError,
        "unknown setting regularizers[0].gama. Did you mean gamma? r1 has: gamma, every",
    ),
    ({"name": "gp", 3: 1}, ConfigError, "unknown setting regularizers[0].3. gp has: weight, every, target"),
    ({"name": "rfm"}, ConfigError, "regularizers[0] needs path: rfm has no default for it"),
    (
        {"name": "gp", "target": "x"},
        FieldTypeError,
        "regularizers[0].target must be a finite number >= 0; got 'x'",
    ),
    ({"name": "r1", "gamma": -1}, ConfigError, "regularizers[0].gamma must be a number >= 0"),
    (
        {"name": "lecam", "decay": 1},
        ConfigError,
        "regularizers[0].decay must be a finite number >= 0 and < 1",
    ),
    ({"name": "cr", "augment": "x"}, ConfigError, "regularizers[0].augment must be a policy"),
    (
        R1(torch.tensor(1.0)),
        FieldTypeError,
        "regularizers[0].gamma is a tensor, which a configuration cannot hold",
    ),
    (LeCam(torch.tensor(1.0)), FieldTypeError, "regularizers[0].weight is a tensor"),
]


@pytest.mark.parametrize(("values", "kind", "message"), MISTAKES, ids=[message for *_, message in MISTAKES])
def test_says_what_is_wrong(values: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        parse_terms([values])
    assert caught.type is kind


def test_terms_are_a_list() -> None:
    with pytest.raises(FieldTypeError, match="regularizers must be a list of mappings"):
        parse_terms({"name": "r1"})


def test_what_cannot_be_written() -> None:
    with pytest.raises(ConfigError, match=r"cr\.augment cannot be written to a configuration: Flip"):
        plain(CR(augment=Flip()))
    with pytest.raises(ConfigError, match=r"r1\.gamma cannot be written to a configuration: tensor"):
        plain(R1(torch.tensor(1.0)))

    class Own(R1):
        pass

    with pytest.raises(ConfigError, match="Own cannot be written to a configuration: it is none of gp, lp"):
        plain(Own())


def test_a_tuple_is_written_as_a_list() -> None:
    assert plain(ALP())["lengths"] == [0.1, 10.0]
    assert plain(RFM("a"))["path"] == "a"
