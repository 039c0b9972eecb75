"""torch-fidelity imports even beside a torch that torchvision was not built for."""

import subprocess
import sys

from fastdat.metrics.fidelity import torch_fidelity


def test_import_in_a_fresh_process() -> None:
    code = "from fastdat.metrics.fidelity import torch_fidelity; print(torch_fidelity().__version__)"
    out = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == torch_fidelity().__version__
