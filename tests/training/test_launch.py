"""Joining the processes that torchrun started."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from fastdat.training import launch
from fastdat.training.launch import VARIABLES, joined, launched
from fastdat.util.errors import ConfigError

OF_TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"RANK": "0"}, False),
        ({"WORLD_SIZE": "1", "RANK": "0"}, False),
        (OF_TORCHRUN, True),
        # One process under torchrun: an exchange with itself, and an elastic run may grow.
        ({**OF_TORCHRUN, "WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "none"}, True),
    ],
)
def test_who_has_company(environment: dict[str, str], expected: bool) -> None:
    assert launched(environment) is expected


@pytest.mark.parametrize("missing", [name for name in VARIABLES if name != "WORLD_SIZE"])
def test_a_missing_variable_is_named(missing: str) -> None:
    given = {name: value for name, value in OF_TORCHRUN.items() if name != missing}
    with pytest.raises(ConfigError, match=rf"WORLD_SIZE=2 .* but {missing} is not set.* torchrun"):
        launched(given)


def test_alone_nothing_is_initialized(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    with joined("auto") as ranks:
        assert not ranks
        assert not dist.is_initialized()


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OF_TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"process 1 .* PyTorch sees 1.*--nproc-per-node 1"), joined("auto"):
        pass


def test_processes_that_do_not_find_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OF_TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "1")  # nobody listens there

    def refused(*_: object, **__: object) -> None:
        raise dist.DistNetworkError("connection refused")

    monkeypatch.setattr(launch, "rendezvous", refused)
    with (
        pytest.raises(ConfigError, match=r"rank 1 .* at 127\.0\.0\.1:1: connection refused"),
        joined("cpu"),
    ):
        pass
