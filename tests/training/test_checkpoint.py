"""Checkpoint files: what is written, what is read back, and what is refused."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastdat.training import RunFolderError, checkpoint
from fastdat.training.checkpoint_structure import FORMAT, KEYS
from fastdat.util.errors import ConfigError
from tests.training.checkpoint_states import small_state
from tests.training.runs import assert_same

FULL = """
import resource, sys
sys.path.insert(0, {tree!r})
from pathlib import Path
import torch
from fastdat.training import checkpoint
from fastdat.util.errors import ConfigError
from tests.training.checkpoint_states import small_state
path = Path({path!r})
checkpoint.save(path, small_state(step=1))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    checkpoint.save(path, small_state(step=2, netG={{"w": torch.ones(1 << 20)}}))
except Exception as error:
    print(type(error).__name__, error)
print(checkpoint.load(path)["step"], [p.name for p in path.parent.iterdir()])
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "latest.pt", small_state())
    return tmp_path / "latest.pt"


def refusal(path: Path) -> str:
    with pytest.raises(RunFolderError) as caught:
        checkpoint.load(path)
    damaged = isinstance(caught.value, checkpoint.DamagedCheckpointError)
    assert damaged == (" is damaged" in str(caught.value))
    return str(caught.value)


def sealed(path: Path, content: Any) -> Path:
    """A file of any content that carries the right digest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_refuse_objects", lambda *_: None)
        patch.setattr(checkpoint, "_refuse_unreadable", lambda *_: None)
        checkpoint.save(path, content)
    return path


def test_what_is_written_is_read(path: Path) -> None:
    loaded = checkpoint.load(path)
    assert loaded.pop("format") == FORMAT
    assert_same(loaded, small_state())


def test_other_programs_read_a_checkpoint_too(path: Path) -> None:
    assert_same(torch.load(path, weights_only=True)["netD"], small_state()["netD"])
    assert torch.load(path, weights_only=True, mmap=True)["step"] == 3
    assert zipfile.ZipFile(path).testzip() is None


def test_300_flipped_bits_are_300_errors(path: Path) -> None:
    """Wherever they are: in tensors, in the pickle, in the archive's headers and padding, in the digest itself."""
    content = bytearray(path.read_bytes())
    generator = torch.Generator().manual_seed(0)
    positions = torch.randperm(8 * len(content), generator=generator)[:280].tolist()
    positions += [8 * (len(content) - i) + i % 8 for i in range(1, 101, 5)]  # at the end, where the digest is
    assert len(set(positions)) == 300
    for position in positions:
        content[position // 8] ^= 1 << position % 8
        path.write_bytes(content)
        assert "latest.pt is damaged" in refusal(path), position
        content[position // 8] ^= 1 << position % 8
    path.write_bytes(content)
    checkpoint.load(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_checkpoint_is_an_error(share: float, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "latest.pt is damaged" in refusal(path)
    path.write_bytes(content + b"\0")
    assert "latest.pt is damaged" in refusal(path)


def test_a_file_that_the_disk_does_not_give_back_is_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(file: Any) -> bool:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("fastdat.training.seal.is_whole", fails)
    with pytest.raises(checkpoint.DamagedCheckpointError, match="cannot be read: Input/output error"):
        checkpoint.load(path)


def test_what_is_whole_but_of_no_use_is_not_damaged(tmp_path: Path) -> None:
    """A run must not go on from an older checkpoint because of it."""
    torch.save({"format": 1} | small_state(), tmp_path / "older.pt")
    torch.save({"w": Command("true")}, tmp_path / "foreign.pt")
    sealed(tmp_path / "other.pt", small_state(format=9))
    for path in (*tmp_path.iterdir(), tmp_path, tmp_path / "missing.pt"):
        with pytest.raises(RunFolderError) as caught:
            checkpoint.load(path)
        assert type(caught.value) is RunFolderError, path


def test_what_is_missing_or_no_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "y.pt") == f"there is no checkpoint {tmp_path / 'y.pt'}."
    assert "cannot be read: Is a directory" in refusal(tmp_path)


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("seal", [False, True], ids=["without a digest", "with its digest"])
def test_a_malicious_checkpoint_executes_nothing_and_is_named(seal: bool, tmp_path: Path) -> None:
    content = small_state(netG={"w": Command(f"touch {tmp_path / 'executed'}")})
    path = tmp_path / "a.pt"
    if seal:
        sealed(path, content)
    else:
        torch.save(content, path)
    message = refusal(path)
    assert "a.pt was refused: it refers to posix.system, and a checkpoint holds only tensors" in message
    assert "Nothing was executed." in message
    assert "weights_only" not in message
    assert not (tmp_path / "executed").exists()


def test_a_malicious_pickle_executes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Command(f"touch {tmp_path / 'executed'}")))
    assert "does not end with the SHA-256 of its bytes" in refusal(tmp_path / "a.pt")
    assert not (tmp_path / "executed").exists()


def test_objects_are_refused_when_writing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\['optG'\]\[0\] is a PosixPath"):
        checkpoint.save(tmp_path / "a.pt", small_state(optG=[tmp_path]))


def nested(levels: int, value: Any = 1.0) -> Any:
    for _ in range(levels):
        value = [value]
    return value


def attributed() -> torch.Tensor:
    tensor = torch.ones(2)
    tensor.origin = "mine"  # type: ignore[attr-defined]  # torch then saves a call of another function
    return tensor


#: What an optimizer of the user's own may keep, and how the message goes on.
UNREADABLE = {
    "a tuple as a key": ({("a", 0): 1.0}, r"\['x'\] has a tuple as a key"),
    "a number of 71 bits": (2**70, r"\['x'\] is a number of 71 bits"),
    "a number of 71 bits as a key": ({2**70: 1.0}, r"\['x'\] has a number of 71 bits as a key"),
    "a number of 65 bits": (-(2**64), r"\['x'\] is a number of 65 bits"),
    "lists in lists": (nested(70), r"\[0\] has more than 64 containers in each other"),
    "a defaultdict": (defaultdict(int), r"\['x'\] is a defaultdict"),
    "a sparse tensor": (torch.eye(3).to_sparse(), r"\['x'\] is a tensor without numbers of its own"),
    "one number repeated": (torch.ones(1).expand(5), r"\['x'\] is a tensor without numbers of its own"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_could_not_be_read_back_is_refused_before_a_run(name: str, tmp_path: Path) -> None:
    value, message = UNREADABLE[name]
    state = small_state(optD={"state": {0: {"x": value}}, "param_groups": []})
    with pytest.raises(ConfigError, match=message):
        checkpoint.check_savable(state)
    with pytest.raises(TypeError, match=message):
        checkpoint.save(tmp_path / "latest.pt", state)
    assert list(tmp_path.iterdir()) == []


def test_the_deepest_place_of_a_tensor(tmp_path: Path) -> None:
    """It is as deep for what writes as for what reads."""
    saved = []
    for levels in range(54, 60):
        state = small_state(
            optD={"state": {0: nested(levels, torch.ones(2))}, "param_groups": [{"params": [], "lr": 1}]}
        )
        try:
            checkpoint.check_savable(state)
        except ConfigError:
            with pytest.raises(RunFolderError, match="more than 64 containers"):
                checkpoint.load(sealed(tmp_path / "latest.pt", state))
        else:
            saved.append(levels)
            checkpoint.save(tmp_path / "latest.pt", state)
            checkpoint.load(tmp_path / "latest.pt")
    assert saved == [54, 55, 56, 57]  # in three containers, and around four


def test_a_written_file_is_checked_before_it_replaces_the_old_one(path: Path) -> None:
    """Whatever the first look at the state has missed."""
    with pytest.raises(TypeError, match=r"could not be read back: it refers to .*_rebuild_from_type_v2"):
        checkpoint.save(path, small_state(step=4, ema={"w": attributed()}))
    assert checkpoint.load(path)["step"] == 3
    assert [file.name for file in path.parent.iterdir()] == ["latest.pt"]


def test_a_net_of_many_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries are limited by the size of the file, so a large net is as good as a small one."""
    monkeypatch.setattr("fastdat.data.torch_file.MOST_ENTRIES", 1000)
    checkpoint.save(tmp_path / "a.pt", small_state(netD={str(i): torch.ones(1) for i in range(300)}))
    assert len(checkpoint.load(tmp_path / "a.pt")["netD"]) == 300


def test_a_file_of_torch_save_is_told_how_it_becomes_a_checkpoint(tmp_path: Path) -> None:
    torch.save({"format": FORMAT} | small_state(), tmp_path / "x.pt")
    message = refusal(tmp_path / "x.pt")
    assert "was not written by fastdat: it does not end with the SHA-256 of its bytes" in message
    assert "If you changed it yourself, write it with fastdat.training.checkpoint.save." in message


#: An entry, a value that it cannot have, and how the message goes on.
WRONG = [
    ("step", -1, "'step' is -1, expected a number of steps"),
    ("step", "3", "'step' is '3', expected"),
    ("step", True, "'step' is True"),
    ("step", torch.tensor(3), "'step' is a Tensor"),
    ("config", None, "'config' is None, expected settings"),
    ("netG", [torch.zeros(1)], "'netG' is a list, expected the tensors of a net by name"),
    ("netG", {}, "'netG' is a dict"),
    ("netD", {0: torch.zeros(1)}, "'netD' is a dict"),
    ("optG", {"state": {}}, "'optG' is a dict, expected an optimizer's state and param_groups"),
    ("optD", {"state": {}, "param_groups": [{"lr": 1.0}]}, "'optD' is a dict"),
    ("optimizers", {"optG": {}}, "'optimizers' is a dict"),
    ("data", 3, "'data' is 3, expected the fingerprint of images"),
    ("ema", torch.zeros(1), "'ema' is a Tensor"),
    ("rng", {}, "'rng' is a dict, expected states"),
    ("rng", {"cpu": torch.zeros(1), "cuda": 3}, "'rng' is a dict, expected states"),
    ("seconds", "long", "'seconds' is 'long'"),
    ("attempt", 1.5, "'attempt' is 1.5"),
    ("meters", {"d": []}, "'meters' is a dict"),
    (
        "meters",
        {k: [{"names": ["a", "b"], "sum": torch.ones(3), "count": 2}] for k in "dg"},
        "'meters' is a dict",
    ),
    (
        "meters",
        {"d": [], "g": [{"names": ["a"], "sum": None, "count": 2}]},
        "'meters' is a dict, expected names",
    ),
    ("meters", {"d": [], "g": [{"names": ["a"], "sum": torch.ones(1), "count": 0}]}, "'meters' is a dict"),
    ("regularizers", {"real": torch.ones(1)}, "'regularizers' is a dict, expected the tensors of each"),
    ("regularizers", [{"real": 1.0}], "'regularizers' is a list"),
    ("best", {"step": 2}, "'best' is a dict"),
    ("unscored", 0, "'unscored' is 0, expected true or false"),
    ("class_names", [1, 2], "'class_names' is a list, expected a list of texts"),
]


@pytest.mark.parametrize(
    ("key", "value", "message"), WRONG, ids=[f"{key}-{i}" for i, (key, *_) in enumerate(WRONG)]
)
def test_a_wrong_structure_is_named(key: str, value: Any, message: str, tmp_path: Path) -> None:
    found = refusal(sealed(tmp_path / "x.pt", small_state(**{key: value})))
    assert f"x.pt is no checkpoint: its entry {message}" in found
    assert {key for key, *_ in WRONG} == set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_entry_is_named(key: str, tmp_path: Path) -> None:
    state = small_state()
    del state[key]
    assert f"is no checkpoint: it has no {key}." in refusal(sealed(tmp_path / "x.pt", state))


def test_another_format_is_named(tmp_path: Path) -> None:
    path = sealed(tmp_path / "x.pt", small_state(format=1))
    assert "its format is 1, this version of fastdat reads 4; go on" in refusal(path)


def test_a_tensor_rate_stays_the_same_tensor() -> None:
    """A captured graph reads this tensor, and the one in a checkpoint is on the CPU."""
    weight = nn.Parameter(torch.zeros(1))
    rate = torch.tensor(0.1)
    optimizer = torch.optim.SGD([weight], lr=rate)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["lr"] = torch.tensor(0.05)
    checkpoint.load_optimizer(optimizer, saved)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.05)


def test_a_tensor_rate_of_a_checkpoint_becomes_a_number() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["lr"] = torch.tensor(0.05)
    checkpoint.load_optimizer(optimizer, saved)
    assert type(optimizer.param_groups[0]["lr"]) is float


def test_an_older_format_is_named(tmp_path: Path) -> None:
    """A healthy run, which must not be taken for a damaged one."""
    torch.save({"format": 1} | small_state(), tmp_path / "x.pt")
    message = refusal(tmp_path / "x.pt")
    assert (
        "was written by an earlier version of fastdat, without a checksum (format 1); this version reads 4"
        in message
    )


def test_a_left_over_second_name_is_not_written_through(path: Path) -> None:
    """A kill may leave it in the place of the file that is written first."""
    good = path.with_name("step-000003.pt")
    os.link(path, good)
    os.link(path, path.with_name(".latest.pt.tmp"))
    checkpoint.save(path, small_state(step=9))
    assert (checkpoint.load(good)["step"], checkpoint.load(path)["step"]) == (3, 9)


def test_the_disk_has_the_whole_file_before_it_gets_its_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the new name before training goes on: a power cut leaves one whole checkpoint under it."""
    done: list[tuple[object, ...]] = []
    wait, rename = os.fsync, os.replace

    def waits(descriptor: int) -> None:
        of = Path(f"/proc/self/fd/{descriptor}").resolve()
        done.append(("wait", of.name, of.stat().st_size if of.is_file() else None))
        wait(descriptor)

    def renames(old: Path, new: Path) -> None:
        done.append(("rename", old.name, new.name))
        rename(old, new)

    monkeypatch.setattr("os.fsync", waits)
    monkeypatch.setattr("os.replace", renames)
    checkpoint.save(path, small_state(step=9))
    temporary, size = ".latest.pt.tmp", path.stat().st_size
    expected = [
        ("wait", temporary, size),
        ("rename", temporary, "latest.pt"),
        ("wait", path.parent.name, None),
    ]
    assert done == expected


def test_an_interrupt_while_writing_stays_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's writer makes an error of its own of it, which would read as a full disk."""

    def interrupted(self: Any, content: bytes) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastdat.training.seal.SealingWriter.write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, small_state(step=9))
    assert checkpoint.load(path)["step"] == 3


def test_a_checkpoint_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    """The operating system enforces a limit on file sizes in the middle of the write."""
    tree = str(Path(__file__).resolve().parents[2])
    code = FULL.format(tree=tree, path=str(tmp_path / "latest.pt"))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "RunFolderError cannot write a checkpoint to" in out
    assert "The one before it is intact" in out
    assert out.splitlines()[-1] == "1 ['latest.pt']"


def test_how_a_step_is_computed_stays_as_it_was_given() -> None:
    """A checkpoint of a GPU may say capturable=True, which no CPU takes."""
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], foreach=False)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0] |= {"capturable": True, "foreach": True}
    checkpoint.load_optimizer(optimizer, saved)
    assert [optimizer.param_groups[0][key] for key in ("capturable", "foreach")] == [False, False]
