"""Checkpoint files."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastdat.training import RunFolderError, checkpoint

FULL = """
import resource, sys
sys.path.insert(0, {tree!r})
from pathlib import Path
import torch
from fastdat.training import checkpoint
state = {{key: None for key in checkpoint.KEYS}} | {{"netG": {{"w": torch.ones(100)}}}}
path = Path({path!r})
checkpoint.save(path, state | {{"step": 1}})
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    checkpoint.save(path, state | {{"step": 2, "netG": {{"w": torch.ones(1 << 20)}}}})
except Exception as error:
    print(type(error).__name__, error)
print(checkpoint.load(path)["step"], [p.name for p in path.parent.iterdir()])
"""


@pytest.fixture
def state() -> dict[str, Any]:
    return dict.fromkeys(checkpoint.KEYS) | {"step": 3, "netG": {"w": torch.arange(3.0)}}


def test_checkpoints_run_no_code(tmp_path: Path, state: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"state\['optG'\]\[0\] is a PosixPath"):
        checkpoint.save(tmp_path / "a.pt", state | {"optG": [tmp_path]})
    torch.save({"format": 1, "step": tmp_path}, tmp_path / "b.pt")
    with pytest.raises(RunFolderError, match=r"b.pt is damaged: Weights only load failed"):
        checkpoint.load(tmp_path / "b.pt")


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


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_checkpoint_is_an_error(share: float, tmp_path: Path, state: dict[str, Any]) -> None:
    path = tmp_path / "latest.pt"
    checkpoint.save(path, state)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(RunFolderError, match=r"latest.pt is damaged"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": 9}, "format 9, expected 1"),
        ([1], "format 'list'"),
        ({"format": 1}, "incomplete: it has no step"),
    ],
    ids=str,
)
def test_other_files_are_an_error(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(RunFolderError, match=message):
        checkpoint.load(tmp_path / "x.pt")
    with pytest.raises(RunFolderError, match="there is no checkpoint"):
        checkpoint.load(tmp_path / "y.pt")


def test_a_checkpoint_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    """The operating system enforces a limit on file sizes in the middle of the write."""
    tree = str(Path(__file__).resolve().parents[2])
    code = FULL.format(tree=tree, path=str(tmp_path / "latest.pt"))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "RunFolderError cannot write a checkpoint to" in out
    assert "The one before it is intact" in out
    assert out.splitlines()[-1] == "1 ['latest.pt']"
