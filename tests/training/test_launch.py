"""Joining the processes that torchrun started."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

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


@pytest.mark.parametrize(
    ("device", "backend", "hang_timeout", "seconds"),
    [("cpu", "gloo", 5000.0, 10_000), ("cuda", "cpu:gloo,cuda:nccl", 1799.0, 3600)],
)
def test_how_the_processes_are_joined(
    device: str, backend: str, hang_timeout: float, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a timeout that is never shorter than the one of the run, and keys of their own for each attempt."""
    store, joins, gpus, ended = dist.HashStore(), [], [], []
    given: dict[str, Any] = {}

    def meet(url: str, timeout: timedelta) -> Any:
        joins.append((url, timeout))
        return iter([(store, 1, 2)])

    def join(backend: str, **settings: Any) -> None:
        given.update(settings, backend=backend)

    for name, value in (OF_TORCHRUN | {"TORCHELASTIC_RESTART_COUNT": "3"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", gpus.append)
    monkeypatch.setattr(launch, "rendezvous", meet)
    monkeypatch.setattr(dist, "init_process_group", join)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: ended.append(1))
    with joined(device, hang_timeout):
        assert ended == []
    timeout = timedelta(seconds=seconds)
    assert (joins, gpus, ended) == ([("env://", timeout)], [1] if device == "cuda" else [], [1])
    given.pop("store").set("key", "value")
    assert store.get("fastdat/attempt_3/key") == b"value"
    assert given == {"backend": backend, "rank": 1, "world_size": 2, "timeout": timeout}


@pytest.mark.parametrize(("device", "times"), [("cpu", 1), ("cuda", 0)])
def test_after_an_error_only_gloo_is_ended(device: str, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """nccl might wait for ranks that wait for this one."""
    ended: list[None] = []
    for name, value in OF_TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda gpu: None)
    monkeypatch.setattr(launch, "_find_each_other", lambda backend, seconds: None)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: ended.append(None))
    with pytest.raises(KeyError, match="mine"), joined(device):
        raise KeyError("mine")
    assert len(ended) == times
