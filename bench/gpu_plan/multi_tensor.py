"""How many kernels torch launches for one operator on lists of tensors (``torch._foreach_*``, ``torch._fused_*``).

The rules are those of ATen/native/cuda/MultiTensorApply.cuh (torch 2.11).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

CHUNK = 65536
"""Elements that one block works on."""
BLOCKS = 320
"""The most blocks of a kernel."""
TENSORS = (110, 64, 48, 36, 30)
"""The most tensors of a list in a kernel, for operators on 1, 2, ... lists."""


def shares_of_kernels(lists: Sequence[Sequence[Tensor]]) -> list[float]:
    """The kernels of one operator; each as its share of all elements, so that the shares have the sum 1.

    Args:
        lists: those that the operator reads or writes, of equal length, with the tensors that belong together at the
            same position. A list may be named twice.
    """
    found = [items for i, items in enumerate(lists) if not any(items is other for other in lists[:i])]
    sizes = [tensor.numel() for tensor in found[0]]
    kernels = _elements(sizes, len(found)) if _fit(found) else [size for size in sizes if size]
    return [elements / sum(sizes) for elements in kernels]


def _fit(lists: Sequence[Sequence[Tensor]]) -> bool:
    """Whether torch's fast way is open: one dtype in each list, one shape and one layout at each position. Otherwise it
    calls the operator on each tensor."""
    return all(len({tensor.dtype for tensor in items}) == 1 for items in lists) and all(
        len({(tensor.shape, tensor.stride()) for tensor in together}) == 1
        for together in zip(*lists, strict=True)
    )


def _elements(sizes: Sequence[int], lists: int) -> list[int]:
    """Elements of each kernel: a kernel is full with so many tensors, or with so many chunks."""
    most = TENSORS[min(lists, len(TENSORS)) - 1]
    kernels: list[int] = []
    tensors = blocks = elements = 0
    for size in sizes:
        if size == 0:
            continue
        tensors += 1
        chunks = -(-size // CHUNK)
        for chunk in range(chunks):
            is_last = chunk == chunks - 1
            blocks += 1
            elements += size - chunk * CHUNK if is_last else CHUNK
            if blocks == BLOCKS or (tensors == most and is_last):
                kernels.append(elements)
                blocks = elements = 0
                tensors = 0 if is_last else 1
    return [*kernels, elements] if blocks else kernels
