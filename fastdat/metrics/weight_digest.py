"""One short text that tells whether two nets hold the same weights."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def weight_digest(net: nn.Module) -> str:
    """SHA-256 in hex of the net's parameters and buffers: their names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
