"""``python -m bench.compile_time.first_step NAME``: the first step of a new process, its times as one line of JSON.

The compile cache is the one that ``TORCHINDUCTOR_CACHE_DIR`` names, empty or filled.
"""

from __future__ import annotations

import time

_BEGUN = time.perf_counter()  # before the imports, which are a part

import json  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from torch._dynamo.utils import compilation_time_metrics, counters  # noqa: E402

import fastdat  # noqa: E402
from fastdat.engine import compile as engines  # noqa: E402
from fastdat.nets import SNGANDiscriminator  # noqa: E402

CONFIGS = {"SNGAN": fastdat.DATConfig(real=False, fake=False), "DAT": fastdat.DATConfig()}
BATCH = 16


def first_step(name: str) -> dict[str, Any]:
    """The first step of SNGAN-32, and the second one, which compiles nothing; all times in seconds."""
    imported = time.perf_counter() - _BEGUN
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    D = SNGANDiscriminator(32).to(device)
    xr, xf = (torch.rand(2, BATCH, 3, 32, 32, device=device) * 2 - 1).unbind()
    inspected = _timed(engines, "_new_engine")

    def step() -> float:
        start = time.perf_counter()
        loss = fastdat.dat_step(D, xr, xf, CONFIGS[name])
        loss.backward()
        loss.item()  # waits for the device
        return time.perf_counter() - start

    first, second = step(), step()
    return {
        "import": imported,
        "inspect": sum(inspected),
        "first": first,
        "second": second,
        "cpu": time.process_time(),
        "cpu_compilers": sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]),
        "metrics": {key: sum(values) for key, values in compilation_time_metrics.items()},
        "counters": {key: dict(counters[key]) for key in ("aot_autograd", "inductor")},
    }


def _timed(module: Any, name: str) -> list[float]:
    """Have a function of ``module`` note how long each of its calls takes, in seconds."""
    function, seconds = getattr(module, name), list[float]()

    def timed(*args: Any) -> Any:
        start = time.perf_counter()
        result = function(*args)
        seconds.append(time.perf_counter() - start)
        return result

    setattr(module, name, timed)
    return seconds


if __name__ == "__main__":
    print(json.dumps(first_step(sys.argv[1])))
