"""Inputs that hypothesis describes: of the right form, with contents that nobody would choose.

``make fuzz`` tries thousands, ``make test`` a few of each (:mod:`tests.fuzz.test_structured`).
"""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fastdat.data import archive
from fastdat.data.inert_pickle import ALLOWED
from fastdat.data.pickle_machine import HIGHEST_INTEGER, LOWEST_INTEGER, Machine
from fastdat.report.runs import is_number
from fastdat.training.train_config import TrainConfig
from fastdat.util import plain_yaml, sealed_json
from fastdat.util.errors import ConfigError, RunFolderError
from fastdat.util.run_layout import read_records
from tests.fuzz import wrapping

_NUMBERS = st.integers() | st.integers(-(10**40), 10**40) | st.floats() | st.booleans() | st.none()
_PLAIN = st.recursive(
    _NUMBERS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_SETTINGS = sorted(TrainConfig().to_dict())
_INNER = [
    f"{key}.{name}"
    for key, value in TrainConfig().to_dict().items()
    if isinstance(value, dict)
    for name in value
]


@given(st.dictionaries(st.sampled_from(_SETTINGS + _INNER) | st.text(max_size=8), _PLAIN, max_size=4))
def settings_of_any_type(values: dict[str, Any]) -> None:
    """Settings are taken, or refused by a ConfigError."""
    with suppress(ConfigError):
        TrainConfig.from_dict(values)


@given(st.dictionaries(st.text(max_size=8), _PLAIN, max_size=4))
def yaml_is_read_as_pyyaml_reads_it(values: dict[str, Any]) -> None:
    """What PyYAML writes without aliases comes back."""
    import yaml

    text = yaml.safe_dump(values, sort_keys=False)
    expected = yaml.safe_load(text)
    assert _same(plain_yaml.loads(text), expected)


@given(st.lists(st.dictionaries(st.just("step") | st.text(max_size=8), _PLAIN, max_size=4), max_size=3))
def lines_of_any_type(lines: list[dict[str, Any]]) -> None:
    """Lines of stats.jsonl are read, or refused by a RunFolderError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stats.jsonl")
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        with suppress(RunFolderError):
            for _, record in read_records(path):
                assert 0 <= record["step"] < 10**12
                for value in record.values():
                    is_number(value)


@given(st.dictionaries(st.text(max_size=8).filter(lambda key: key != "sha256"), _PLAIN, max_size=4))
def sealed_json_comes_back(content: dict[str, Any]) -> None:
    """What was sealed is unsealed, and a changed byte is found."""
    sealed = sealed_json.seal(content)
    assert _same(sealed_json.unseal(sealed), json.loads(json.dumps(content)))
    changed = bytearray(sealed)
    changed[len(changed) // 2] ^= 1
    try:
        sealed_json.unseal(bytes(changed))
    except sealed_json.SealError:
        return
    raise AssertionError("a changed byte was not found")


_KEYS = st.integers(LOWEST_INTEGER, HIGHEST_INTEGER)
_PICKLED = st.recursive(
    _NUMBERS | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | _KEYS, inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


@given(_PICKLED, st.integers(3, 5))
def pickles_are_read_as_python_reads_them(value: Any, protocol: int) -> None:
    """Plain data comes out of our interpreter as it comes out of Python's."""
    raw = pickle.dumps(value, protocol)
    assert _same(Machine(raw, ALLOWED).run(), pickle.loads(raw))


_PARTS = st.sampled_from(
    ["..", ".", "", "a", "b", "/", "etc", "\\..", "..\\..", "a\x00", "x" * 300, "\u202e"]
)


@given(st.lists(st.lists(_PARTS, min_size=1, max_size=4).map("/".join), max_size=3), st.booleans())
def members_stay_in_their_folder(names: list[str], as_zip: bool) -> None:
    """Whatever members are called: nothing is written outside of the folder."""
    members = {name.replace("\x00", "" if as_zip else "\x00"): b"content" for name in names}
    raw = wrapping.zip_of(members) if as_zip else wrapping.tar_of(members)
    with tempfile.TemporaryDirectory() as scratch:
        packed, folder = Path(scratch, "outer", "archive"), Path(scratch, "outer", "inner", "unpacked")
        folder.mkdir(parents=True)
        packed.write_bytes(raw)
        with suppress(archive.ArchiveError, OSError):
            archive.unpack(packed, folder)
        outside = {path for path in Path(scratch).rglob("*") if folder not in path.parents and path != folder}
        assert outside == {packed.parent, packed, folder.parent}


ALL: dict[str, tuple[Callable[[], None], int]] = {
    function.__name__: (function, inputs)
    for function, inputs in (
        (settings_of_any_type, 4_000),
        (yaml_is_read_as_pyyaml_reads_it, 1_000),
        (lines_of_any_type, 3_000),
        (sealed_json_comes_back, 3_000),
        (pickles_are_read_as_python_reads_them, 4_000),
        (members_stay_in_their_folder, 2_000),
    )
}
"""Each with the number of inputs that ``make fuzz`` tries."""


def tried(function: Callable[[], None], inputs: int, start: int = 0) -> Callable[[], None]:
    """``function`` with so many inputs, the same for the same ``start``."""
    limits = settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    return seed(start)(limits(function))


def run_all(start: int) -> dict[str, int]:
    """Try all; returns the number of inputs of each. An input that fails ends it with its error."""
    for function, inputs in ALL.values():
        tried(function, inputs, start)()
    return {name: inputs for name, (_, inputs) in ALL.items()}


def _same(left: Any, right: Any) -> bool:
    """Equality in which NaN equals itself, and 1, 1.0 and True differ."""
    return repr(left) == repr(right)
