"""Files that were made to do harm: each reader refuses them by its own error, and nothing in them happens."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import zipfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdat.data import cifar10, inert_pickle, pickle_machine, torch_file
from fastdat.data.store import INDEX, Store
from fastdat.experiments import results_page
from fastdat.metrics import make_extractor
from fastdat.training import checkpoint
from fastdat.training.config_file import read_settings, recorded_config
from fastdat.util import plain_json, run_layout, sealed_json
from fastdat.util.errors import ConfigError, DataError, RunFolderError
from tests.fuzz import attacks, wrapping
from tests.fuzz.watch import Watch
from tests.training.checkpoint_states import small_state


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What reading imports is imported before anything is watched."""
    path = tmp_path_factory.mktemp("good") / "latest.pt"
    path.write_bytes(
        wrapping.sealed(wrapping.with_pickle(good_archive())(wrapping.pickle_in(good_archive())))
    )
    checkpoint.load(path)
    path.with_name(run_layout.CONFIG).write_text("lr: 1")
    recorded_config(path.parent)


@pytest.fixture(autouse=True)
def quick() -> Any:
    """A reader that takes seconds for a kilobyte has fallen for it."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 20  # on any machine; most take milliseconds


@cache
def good_archive() -> bytes:
    return wrapping.torch_archive({"format": checkpoint.FORMAT, **small_state()})


# --- pickles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", attacks.PICKLES)
def test_pickles_of_images(name: str, tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(attacks.PICKLES[name])
    with Watch(tmp_path) as watch, pytest.raises(DataError, match="Nothing in it was executed"):
        inert_pickle.read(tmp_path / "batch")
    assert watch.found == []


def test_a_large_number_in_the_memo_costs_nothing(tmp_path: Path) -> None:
    """Python's own interpreter would take 64 GiB for it."""
    (tmp_path / "batch").write_bytes(b"\x80\x02Nr\xff\xff\xff\xff.")
    assert inert_pickle.read(tmp_path / "batch") is None


@pytest.mark.parametrize("name", attacks.LARGE_PICKLES)
@pytest.mark.parametrize("key", [b"labels", b"label_names"])
def test_data_that_cannot_be_shown(name: str, key: bytes, tmp_path: Path) -> None:
    """In a batch and in a list of classes, whose messages show what was found."""
    body = attacks.LARGE_PICKLES[name].removeprefix(b"\x80\x02")[:-1]
    pixels = pickle.dumps(bytes(2 * 3072), 3)[2:-1]
    array = (
        b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01K\x02M\x00\x0c\x86"
    )
    array += (
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    )
    data = b"X\x04\x00\x00\x00data" + array + pixels + b"tb"
    values = b"X" + len(key).to_bytes(4, "little") + key + b"]" + body + b"a" + b"K\x01" + b"a"
    (tmp_path / "batch").write_bytes(b"\x80\x02}(" + data + values + b"u.")
    assert inert_pickle.byte_array(inert_pickle.read(tmp_path / "batch")["data"]) is not None
    with pytest.raises(DataError, match=r"found (a list|a int)\."):
        _read(tmp_path / "batch", key)


def _read(path: Path, key: bytes) -> None:
    if key == b"labels":
        cifar10.read_batch(path, cifar10._LAYOUT, 2)
    cifar10.read_classes(path, cifar10._LAYOUT)


@pytest.mark.parametrize("name", [*attacks.PICKLES, *attacks.LARGE_PICKLES])
@pytest.mark.parametrize("sealed", [True, False], ids=["with its digest", "without a digest"])
def test_pickles_in_checkpoints(name: str, sealed: bool, tmp_path: Path) -> None:
    content = (attacks.PICKLES | attacks.LARGE_PICKLES)[name]
    archive = wrapping.with_pickle(good_archive())(content)
    path = tmp_path / "latest.pt"
    path.write_bytes(wrapping.sealed(archive) if sealed else archive)
    with Watch(tmp_path) as watch, pytest.raises(RunFolderError, match=r"latest\.pt (is|was) "):
        checkpoint.load(path)
    assert watch.found == []
    path.write_bytes(content)  # without any archive
    with pytest.raises(RunFolderError, match=r"latest\.pt (is|was) "):
        checkpoint.load(path)


@pytest.mark.parametrize("name", [*attacks.PICKLES, *attacks.LARGE_PICKLES])
def test_pickles_in_weights(name: str, tmp_path: Path) -> None:
    content = (attacks.PICKLES | attacks.LARGE_PICKLES)[name]
    legacy = io.BytesIO()
    torch.save({"w": torch.ones(2)}, legacy, _use_new_zipfile_serialization=False)
    beginning = legacy.getvalue()
    start = 0  # of the fourth pickle: behind magic number, protocol and system
    for _ in range(3):
        start = beginning.index(b".", start) + 1
    for raw in (wrapping.with_pickle(good_archive())(content), content, beginning[:start] + content):
        with pytest.raises(torch_file.TorchFileError):
            torch_file.check(io.BytesIO(raw), legacy=True)


# --- archives of torch -----------------------------------------------------------------------------------------------


def refusal(archive: bytes) -> str:
    with pytest.raises(torch_file.TorchFileError) as caught:
        torch_file.check(io.BytesIO(archive))
    return str(caught.value)


def test_a_compressed_record_is_refused() -> None:
    """10 KB that torch would unpack to 10 MB."""
    archive = wrapping.torch_archive({"w": torch.zeros(10 << 18)})
    names = wrapping.zip_members(archive)
    bomb = wrapping.zip_of(names)
    assert len(bomb) < len(archive) / 100
    assert "are compressed" in refusal(bomb)


def test_records_that_overlap_are_refused() -> None:
    """Every record is stored, and two entries of the directory share one."""
    archive = wrapping.torch_archive({"w": torch.zeros(1 << 16)})
    members = wrapping.zip_members(archive)
    name = next(name for name in members if name.endswith("/data/0"))
    assert "more than the file" in refusal(wrapping.zip_of_one_content(members, name, copies=3))


def test_a_tensor_longer_than_its_record_is_refused() -> None:
    archive = wrapping.torch_archive({"w": torch.arange(4.0)})
    pickled = wrapping.pickle_in(archive)
    assert pickled.count(b"K\x04tq") == 1
    longer = wrapping.with_pickle(archive)(pickled.replace(b"K\x04tq", b"K\x40tq"))
    assert refusal(longer) == "a tensor has 256 bytes, and its record data/0 has 16"


def test_two_names_that_torch_does_not_tell_apart_are_refused() -> None:
    archive = wrapping.torch_archive({"w": torch.ones(4)})
    members = wrapping.zip_members(archive)
    name = next(name for name in members if name.endswith("data.pkl"))
    members[name.replace("data.pkl", "DATA.PKL")] = attacks.PICKLES["GLOBAL"]
    assert refusal(wrapping.zip_of(members, 0)) == "two of its records have the same name"


def test_what_torch_saves_passes() -> None:
    types = [
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16),
        *(torch.float8_e4m3fn, torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.complex64, torch.complex128),
    ]
    state = {str(kind): torch.zeros(3, dtype=kind) for kind in types} | {
        "nested": [({"a": torch.ones(2)[1:]},)]
    }
    found = torch_file.check(io.BytesIO(wrapping.torch_archive(state)))
    assert found.keys() == state.keys()
    legacy = io.BytesIO()
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    assert torch_file.check(legacy, legacy=True).keys() == state.keys()


@pytest.mark.parametrize(
    "tensor",
    [torch.ones(1).expand(1 << 40), torch.eye(3).to_sparse(), torch.ones(3, device="meta")],
    ids=["one number repeated", "sparse", "without numbers"],
)
def test_tensors_that_are_larger_than_their_file(tensor: torch.Tensor, tmp_path: Path) -> None:
    """They are small as long as nobody copies them."""
    state = {"format": checkpoint.FORMAT, **small_state(ema={"w": tensor})}
    (tmp_path / "latest.pt").write_bytes(wrapping.sealed(wrapping.torch_archive(state)))
    with pytest.raises(RunFolderError, match=r"it (has a tensor without numbers|refers to)"):
        checkpoint.load(tmp_path / "latest.pt")


# --- files that torch reads otherwise than the check -----------------------------------------------------------------


def evil(marker: Path) -> attacks.Runs:
    return attacks.Runs(os.mkdir, str(marker))


def two_directories(marker: Path) -> bytes:
    hidden = wrapping.torch_archive({"w": evil(marker)})
    size = len(wrapping.pickle_in(hidden))
    texts = (wrapping.torch_archive({"w": "x" * n}) for n in range(size))
    return wrapping.with_two_directories(
        next(text for text in texts if len(wrapping.pickle_in(text)) == size), hidden
    )


def tar_and_pickle(marker: Path) -> bytes:
    return wrapping.tar_and_pickle(pickle.dumps({"w": evil(marker)}, 2), {"w": 1})


@pytest.mark.parametrize("make", [two_directories, tar_and_pickle])
@pytest.mark.parametrize("checked", [True, False], ids=["as it is", "if the check saw nothing"])
def test_weights_of_two_readings(
    make: Any, checked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch-fidelity would execute what torch finds in them, whatever the check has seen."""
    (tmp_path / "w.pth").write_bytes(make(tmp_path / "executed"))
    if not checked:
        monkeypatch.setattr(torch_file, "check", lambda file, legacy: None)
    with pytest.raises(ConfigError, match=r"w\.pth holds no weights of inception-v3-compat"):
        make_extractor("inception-v3-compat", str(tmp_path / "w.pth"), torch.device("cpu"))
    assert not (tmp_path / "executed").exists()
    # The file is as dangerous as it is meant to be.
    with suppress(Exception):
        torch.load(tmp_path / "w.pth", weights_only=False)
    assert (tmp_path / "executed").exists()


def test_a_tar_is_named(tmp_path: Path) -> None:
    with pytest.raises(torch_file.TorchFileError, match="it is a tar archive"):
        torch_file.check(io.BytesIO(tar_and_pickle(tmp_path / "executed")), legacy=True)


def test_a_directory_that_only_torch_sees() -> None:
    seen, hidden = (wrapping.torch_archive({"w": torch.full((4,), value)}) for value in (2.0, 1.0))
    raw = wrapping.with_two_directories(seen, hidden)
    assert torch.load(io.BytesIO(raw), weights_only=True)["w"][0] == 1, "torch sees the other one"
    assert "its directory is not where" in refusal(raw)


def test_a_directory_elsewhere_than_its_end_record_says() -> None:
    assert "its directory is not where" in refusal(wrapping.shifted(good_archive()))
    stored = wrapping.zip_of(wrapping.zip_members(good_archive()), zipfile.ZIP_STORED)  # has no zip64 record
    for comment in (b"", b"c", bytes(0xFFFF)):
        torch_file.check(io.BytesIO(stored[:-2] + struct.pack("<H", len(comment)) + comment))
    assert "its directory is not where" in refusal(b"PK\x03\x04" + stored)
    for raw in (stored, good_archive()):
        assert "its directory is not where" in refusal(raw + b"\0")
        fewer = bytearray(raw)
        zip64 = fewer.rfind(b"PK\x06\x06")
        fewer[fewer.rfind(b"PK\x05\x06") + 10 if zip64 < 0 else zip64 + 32] -= 1  # the number of records
        assert "its directory is not where" in refusal(bytes(fewer))


def with_numbers(pickled: bytes) -> bytes:
    """A file of ``torch.save`` with this pickle and one storage of 4 numbers."""
    return wrapping.with_pickle(wrapping.torch_archive({"w": torch.arange(4.0)}))(pickled)


def text(content: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(content)) + content


def storage(numbers: int) -> bytes:
    return b"(%bctorch\nFloatStorage\n%b%bJ%btQ" % (
        text(b"storage"), text(b"0"), text(b"cpu"), struct.pack("<i", numbers),
    )  # fmt: skip


def test_a_reference_that_is_replaced_is_checked() -> None:
    """torch makes a storage for the first reference to a record, whatever becomes of it."""
    for dropped in (b"%b0", b"]%ba0", b"}%bb0", b"ccollections\nOrderedDict\n)R%bb0"):
        good, bad = (with_numbers(b"\x80\x02" + dropped % storage(n) + b"}.") for n in (4, 100_000_000))
        torch_file.check(io.BytesIO(good))
        assert refusal(bad) == "a tensor has 400,000,000 bytes, and its record data/0 has 16"


def test_what_is_dropped_is_counted_too() -> None:
    body = attacks.LARGE_PICKLES["2^60 numbers"].removeprefix(b"\x80\x02")[:-1]
    assert "entries" in refusal(with_numbers(b"\x80\x02}" + body + b"b."))
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n" + body + b"\x85R0"
    assert "entries" in refusal(with_numbers(b"\x80\x02" + tensor + b"}."))


def test_entries_are_counted_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a shared list each time: a list that holds one of 40 items twice has 1 + 2 * 41."""
    monkeypatch.setattr(torch_file, "MOST_ENTRIES", 83)
    pickled = b"\x80\x02](](" + b"N" * 40 + b"eq\x00h\x00e."
    assert len(pickled) < 83
    torch_file.check(io.BytesIO(with_numbers(pickled)))
    monkeypatch.setattr(torch_file, "MOST_ENTRIES", 82)
    assert "more than 82 entries" in refusal(with_numbers(pickled))


def test_levels_are_counted_from_the_outermost() -> None:
    """A list that was seen at another place, not as deep, is as deep as it is."""
    deep = b"]" * 40 + b"a" * 39
    torch_file.check(io.BytesIO(with_numbers(b"\x80\x02" + deep + b".")))
    twice = b"\x80\x02](" + deep + b"q\x00" + b"]" * 40 + b"h\x00" + b"a" * 40 + b"e."
    assert "more than 64 containers" in refusal(with_numbers(twice))


def test_only_tensors_are_called() -> None:
    """torch would make a storage of any size by this call."""
    call = b"ctorch.storage\nUntypedStorage\n\x8a\x06" + b"\x7f" * 6 + b"\x85R"
    for pickled in (b"\x80\x02" + call + b".", b"\x80\x02" + call + b"0}."):
        assert refusal(with_numbers(pickled)) == "it calls UntypedStorage, which makes no tensor"
    with pytest.raises(torch_file.TorchFileError, match=r"it refers to os\.system, which no weights needs"):
        torch_file.check(io.BytesIO(b"cos\nsystem\n."), legacy=True)


def test_an_ordered_dict_of_pairs_has_the_keys_of_a_dict() -> None:
    """As Python 2 pickled it."""
    made = b"\x80\x02ccollections\nOrderedDict\n](]%ba]%bae\x85R."
    found = torch_file.check(io.BytesIO(with_numbers(made % (b"K\x01aK\x02", b"K\x03aK\x04"))))
    assert found == {1: 2, 3: 4}
    assert "is the key of an entry" in refusal(with_numbers(made % (b")aK\x02", b"K\x03aK\x04")))
    assert "no list of pairs" in refusal(with_numbers(made % (b"K\x01", b"K\x03")))


def test_large_numbers_as_keys() -> None:
    """Multiples of 2^61 - 1 have the same hash: each new one would be compared with all before it."""
    most = 1 << 64
    for key in (most - 1, -(most >> 1)):
        assert pickle_machine.Machine(pickle.dumps({key: 1}, 2), set()).run() == {key: 1}
    for key in (most, -(most >> 1) - 1):
        for pickled in (pickle.dumps({key: 1}, 2), pickle.dumps({key: 1, 2: 3}, 2)):
            with pytest.raises(pickle_machine.PickleError, match="is the key of an entry"):
                pickle_machine.Machine(pickled, set()).run()


# --- YAML and JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", attacks.YAMLS)
def test_yaml(name: str, tmp_path: Path) -> None:
    path = tmp_path / run_layout.CONFIG
    path.write_text(attacks.YAMLS[name])
    with Watch(tmp_path) as watch:
        with pytest.raises(ConfigError, match=r"config\.yaml (is not YAML|must hold settings)"):
            read_settings(path)
        with pytest.raises(RunFolderError, match=r"config\.yaml (cannot be read|must hold settings)"):
            recorded_config(tmp_path)
    assert watch.found == []


def test_brackets_are_counted_before_they_take_time(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"a: {'[' * 33}{']' * 33}\n")
    with pytest.raises(ConfigError, match="more than 32 brackets in each other"):
        read_settings(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text(f"a: {'[' * 32}{']' * 32}\n")
    assert "a" in read_settings(tmp_path / "a.yaml")


def test_aliases_that_stand_for_little_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("dat: &dat {eps: 0.5}\nattack: {<<: *dat, name: x}\nlr: 1e-4\n")
    found = read_settings(tmp_path / "a.yaml")
    assert found == {"dat": {"eps": 0.5}, "attack": {"eps": 0.5, "name": "x"}, "lr": 1e-4}


@pytest.mark.parametrize("name", attacks.JSONS)
def test_json(name: str, tmp_path: Path) -> None:
    content = attacks.JSONS[name]
    (tmp_path / "stats.jsonl").write_bytes(content + b'\n{"step": 1}\n')
    with pytest.raises(RunFolderError, match=r"stats\.jsonl, line 1, is damaged"):
        list(run_layout.read_records(tmp_path / "stats.jsonl"))
    (tmp_path / INDEX).write_bytes(wrapping.sealed_json(b"{" + content))
    with pytest.raises(DataError, match=r"store\.json is damaged"):
        Store(tmp_path)
    (tmp_path / "fig4.json").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"fig4\.json is no"):
        results_page.page(tmp_path, "results")
    with pytest.raises(sealed_json.SealError):
        sealed_json.unseal(content)


@pytest.mark.parametrize("step", [-1, 10**12, 10**4000, True, 1.0, "1", None])
def test_steps_that_are_none(step: Any, tmp_path: Path) -> None:
    (tmp_path / "stats.jsonl").write_text(json.dumps({"step": step}) + "\n{}\n")
    with pytest.raises(RunFolderError, match=r"line 1, is damaged.*step is "):
        list(run_layout.read_records(tmp_path / "stats.jsonl"))


def test_json_is_utf_8() -> None:
    assert plain_json.loads('{"ä": 1}'.encode()) == {"ä": 1}
    for encoding in ("utf-16", "utf-32"):
        with pytest.raises(ValueError, match="utf-8"):
            plain_json.loads('{"ä": 1}'.encode(encoding))
