"""The measured iterations that ``fastdat plan`` is fitted to: time and memory of trainings of several sizes.

The package ships ``measured_sizes.json``, made from bench/results by ``python -m bench.run_size.keep``. The results of
``make gpu-check PART=sizes`` on another device have the same content and can be read beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastdat.training.iteration_cost import iteration_cost
from fastdat.training.size_fit import Sized
from fastdat.training.train_config import TrainConfig
from fastdat.util import plain_json
from fastdat.util.errors import ConfigError

SHIPPED = "measured_sizes.json"
BENCHMARK = "bench_run_size["
UNCAPTURED = "bench_iteration[fastdat DAT, not captured]"
_OF_RUN = ("eval", "monitor", "checkpoints")  # settings that change nothing in an iteration
_HELD = ("peak_reserved_bytes", "peak_process_bytes")


@dataclass(frozen=True)
class Measured:
    """One training that was measured.

    Args:
        name: of the benchmark.
        device: the GPU's name, or the processor's.
        source: name of the file of results, and the commit.
        settings: of the training, as far as they differ from ``TrainConfig()``.
        seconds: of an iteration.
        held: bytes that torch's allocator had taken of a GPU at most; on a CPU, of the process. None if it was not
            measured.
        images: bytes of the data set, which lay on the device.
        whole: bytes of memory of the device; None if they were not recorded.
    """

    name: str
    device: str
    source: str
    settings: Mapping[str, Any]
    seconds: float
    held: int | None
    images: int
    whole: int | None = None

    @property
    def config(self) -> TrainConfig:
        return TrainConfig.from_dict(self.settings)

    @property
    def captured(self) -> bool:
        """Whether its iterations were replayed as CUDA graphs; always on a CPU, where there is no such difference."""
        return self.held is not None and self.config.cuda_graph

    def sized(self) -> Sized:
        """What the model is fitted to.

        Raises:
            ValueError: its memory was not measured.
        """
        if self.held is None:
            raise ValueError(f"{self.name} has no memory")
        return Sized(self.name, iteration_cost(self.config), self.seconds, self.held, self.images)


def shipped() -> list[Measured]:
    """The measurements that come with the package."""
    text = files("fastdat.training").joinpath(SHIPPED).read_text()
    return [Measured(**entry) for entry in json.loads(text)["measurements"]]


def read_results(path: Path) -> list[Measured]:
    """The measurements in a file of results of ``make gpu-check PART=sizes``, or of the benchmark.

    Raises:
        ConfigError: it cannot be read, or has no measurement of a size.
    """
    try:
        found = _entries(plain_json.loads(path.read_bytes()), path.name)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist: make gpu-check PART=sizes writes such a file") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no file of results: {type(error).__name__}: {error}") from error
    if not found:
        raise ConfigError(f"{path} has no result of bench_run_size: measure with make gpu-check PART=sizes")
    return found


def _entries(results: Mapping[str, Any], source: str) -> list[Measured]:
    commits = {name: part["commit_info"]["id"] for name, part in results.get("parts", {}).items()}
    whole = (results.get("commit_info") or {}).get("id")
    found = []
    for benchmark in results["benchmarks"]:
        name, more = benchmark["name"], benchmark["extra_info"]
        if name.startswith(BENCHMARK):
            settings = changed_settings(more["settings"])
            held = next((key for key in _HELD if key in more), None)
            if held is None:
                raise ValueError(f"{name} has neither {' nor '.join(_HELD)}")
            images = image_bytes(TrainConfig.from_dict(settings))
            found.append(
                Measured(
                    name.removeprefix(BENCHMARK).removesuffix("]"),
                    _device(more["machine"]),
                    f"{source}, commit {commits.get('sizes', whole)}",
                    settings,
                    _number(more, "seconds"),
                    _number(more, held),
                    _number(more, "image_bytes") if "image_bytes" in more else images,
                    _number(more, "device_bytes") if "device_bytes" in more else None,
                )
            )
        elif name == UNCAPTURED:
            found.append(
                Measured(
                    "sngan-dat-cifar10 batch=64 cuda_graph=False",
                    _device(results["machine_info"]),
                    f"{source}, commit {commits.get('iteration', whole)}",
                    _of_iteration(more),
                    _number(more, "median_ms") / 1e3,
                    None,
                    0,
                )
            )
    return found


def _number(of_run: Mapping[str, Any], key: str) -> Any:
    value = of_run[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e18:
        raise ValueError(f"{key} must be a positive number, got {value!r}")
    return value


def _device(machine: Mapping[str, Any]) -> str:
    name = machine["device"]
    if not isinstance(name, str):
        raise ValueError(f"the name of the device must be text, got {name!r}")
    return name


def image_bytes(config: TrainConfig) -> int:
    """Bytes of the noise that bench/run_size/worker.py trains on."""
    return max(4096, 2 * config.batch_size) * 3 * config.resolution**2


def changed_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a recorded configuration that differ from the defaults and matter to an iteration."""
    config = TrainConfig.from_dict({k: v for k, v in settings.items() if k not in _OF_RUN})
    quiet = ("steps", "log_every", "sample_every", "logger")
    recorded, default = config.to_dict(), TrainConfig().to_dict()
    return {k: v for k, v in recorded.items() if v != default[k] and k not in quiet}


def _of_iteration(measured: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of ``bench_iteration[fastdat DAT, not captured]``, which are written in bench/bench_iteration.py."""
    settings = {
        "model": "sngan",
        "dataset": "cifar10",
        "batch_size": measured["batch"],
        "n_dis": measured["n_dis"],
        "lr_decay": "none",
        "cuda_graph": False,
        "precision": "bf16",
        "channels_last": True,
        "cudnn_benchmark": True,
    }
    TrainConfig.from_dict(settings)  # or a wrong one would be found later
    return settings


def devices(measurements: Sequence[Measured]) -> list[str]:
    """The devices that were measured, in the order of the measurements."""
    return list(dict.fromkeys(m.device for m in measurements))
