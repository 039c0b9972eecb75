"""Shows torch an H200 that is not there, so that torch.compile lowers and schedules a step for it. Nothing runs on it.

torch's CUDA build compiles for a GPU without a driver if its questions about the device are answered. It asks them in
C++ (pretended_gpu.cpp), in ``torch.cuda``, in Triton's driver, and by small computations on the device.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastdat.kernels import dispatch

ARCHITECTURE = 90
"""Compute capability of the pretended device."""

H200 = SimpleNamespace(
    name="NVIDIA H200",
    major=9,
    minor=0,
    multi_processor_count=132,
    total_memory=141 << 30,
    warp_size=32,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    L2_cache_size=50 << 20,
    shared_memory_per_multiprocessor=233472,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448,
    gcnArchName="",
)
"""Its ``torch.cuda.get_device_properties``."""


class PretenceError(RuntimeError):
    """No device can be pretended on this machine."""


def obstacle() -> str | None:
    """Why no device can be pretended on this machine, and what to do about it; None if one can."""
    compiler = _compiler()
    if torch.version.cuda is None:
        return (
            f"torch {torch.__version__} is a build without CUDA, and the plan for a GPU needs torch's CUDA build: "
            "`make gpu-plan` installs one into an environment of its own and runs with it"
        )
    if torch.cuda.is_available():
        return (
            f"there is a GPU here ({torch.cuda.get_device_name()}), and another one cannot be pretended beside it: "
            "measure the real one with `make gpu-check`"
        )
    if dispatch.INTERPRETED or not dispatch.AVAILABLE:
        return (
            "fastdat's Triton kernels are turned off, so the plan would not contain them: install triton, and unset "
            "TRITON_INTERPRET and FASTDAT_TRITON"
        )
    if platform.machine() != "x86_64":
        return f"the processor is {platform.machine()}, and pretended_gpu.cpp is written for x86_64: use such a machine"
    if shutil.which(compiler) is None:
        return (
            f"there is no C++ compiler '{compiler}', and pretended_gpu.cpp needs one: install g++ (Debian, Ubuntu: "
            "apt-get install g++) or set CXX"
        )
    return None


@functools.cache
def pretend() -> None:
    """Make torch and Triton see an H200 for the rest of this process.

    The device has no memory, so its tensors must be fake ones (``FakeTensorMode``). Modules that ask about the device
    when they are imported must be imported afterwards.

    Raises:
        PretenceError: no device can be pretended here, for the reason that ``obstacle`` gives.
    """
    problem = obstacle()
    if problem is not None:
        raise PretenceError(problem)
    _answer_in_cpp()
    _answer_in_torch_cuda()
    _keep_fake_tensors_off_the_device()
    _answer_in_triton()
    _fold_constants_on_the_cpu()


def _compiler() -> str:
    return os.environ.get("CXX") or "g++"


def _answer_in_cpp() -> None:
    torch_folder, source = Path(torch.__file__).parent, Path(__file__).with_suffix(".cpp")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "pretended_gpu.so"
        command = [_compiler(), "-std=c++20", "-w", "-shared", "-fPIC", str(source), "-o", str(library)]
        command += [
            "-I",
            str(torch_folder / "include"),
            "-L",
            str(torch_folder / "lib"),
            "-lc10",
            "-ltorch_cpu",
        ]
        outcome = subprocess.run(command, capture_output=True, text=True)
        if outcome.returncode != 0:
            raise PretenceError(f"{source.name} did not compile with '{_compiler()}':\n{outcome.stderr}")
        ctypes.CDLL(str(library)).install()
    # FakeTensorMode calls this function if there is no device; it would replace our guard by torch's own.
    torch._C._ensureCUDADeviceGuardSet = lambda: None
    # Otherwise autograd starts a thread for the device, which sets the current device first.
    torch.autograd.set_multithreading_enabled(False)


def _answer_in_torch_cuda() -> None:
    from torch._dynamo.device_interface import CudaInterface

    answers = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_properties": H200,
        "get_device_capability": (H200.major, H200.minor),
        "get_device_name": H200.name,
        "is_bf16_supported": True,
        "get_rng_state": torch.get_rng_state(),
        "_exchange_device": -1,
        "_maybe_exchange_device": -1,
        **dict.fromkeys(("_lazy_init", "set_device", "set_rng_state", "synchronize")),
    }
    for name, answer in answers.items():
        function = functools.partial(_answer, answer)
        setattr(torch.cuda, name, function)
        if hasattr(CudaInterface, name):  # Dynamo's copy of torch.cuda's functions
            setattr(CudaInterface, name, staticmethod(function))


def _answer(answer: Any, *args: Any, **kwargs: Any) -> Any:
    return answer


def _keep_fake_tensors_off_the_device() -> None:
    from torch._subclasses import fake_tensor

    fake_tensor.init_gpu_context = lambda device: None  # type: ignore[assignment]  # would make a real tensor
    # Constants stay on the CPU, as they do if torch.cuda has no device.
    fake_tensor.FakeTensorMode.avoid_device_init = True  # type: ignore[assignment, method-assign]


def _answer_in_triton() -> None:
    import triton
    from torch._inductor.runtime import triton_helpers
    from triton.backends.compiler import GPUTarget

    triton.runtime.driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: GPUTarget("cuda", ARCHITECTURE, H200.warp_size),
            get_current_device=lambda: 0,
            get_current_stream=lambda device: 0,
        )
    )
    triton_helpers.set_driver_to_gpu = lambda: None  # would look for a real driver


def _fold_constants_on_the_cpu() -> None:
    """Let inductor compute uniform constants, of one element each, on the CPU instead of their device."""
    from torch._inductor.fx_passes.joint_graph import UniformValueConstantFolder

    deduce = UniformValueConstantFolder._deduce_value

    def on_cpu(self: UniformValueConstantFolder, node: torch.fx.Node) -> Any:
        with _OnCPU():
            return deduce(self, node)

    UniformValueConstantFolder._deduce_value = on_cpu  # type: ignore[method-assign]


class _OnCPU(TorchDispatchMode):
    """Within it, tensors are made on the CPU whatever device is given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        return func(*args, **kwargs)
