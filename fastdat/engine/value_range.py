"""Whether samples lie in the range that the attack clips to: images in [0, 1] or 0..255 would be attacked wrongly.

No values are read here: who calls it has measured them, and says where a message is shown.
"""

from __future__ import annotations

TOLERANCE = 1e-5
"""Part of the width of the bounds by which values may lie outside: the rounding of fp32."""


def range_problem(
    name: str,
    low: float,
    high: float,
    bounds: tuple[float, float] | None,
    tolerance: float = TOLERANCE,
    *,
    generated: bool = False,
) -> str | None:
    """What is wrong with samples of this range, and what to do; None where nothing is.

    Args:
        name: of the samples, the message's first word.
        low, high: their smallest and largest value, finite.
        bounds: range of the data as ``DATConfig.bounds``; None for data without bounds.
        tolerance: part of the width of ``bounds`` by which values may lie outside.
        generated: the samples are G's. Those of an untrained G may all be bright; a batch of data never is, so that
            data without a value below 0 are taken for images in [0, 1].
    """
    if bounds is None:
        return None
    slack = tolerance * (bounds[1] - bounds[0])
    inside = bounds[0] - slack <= low and high <= bounds[1] + slack
    one_sided = bounds[0] < 0 <= low and high > 0
    if inside and (generated or not one_sided):
        return None
    return (
        f"{name} has values in [{low:.6g}, {high:.6g}], but DATConfig.bounds is [{bounds[0]:g}, {bounds[1]:g}], the "
        f"range that perturbed samples are clipped to: {_cure(low, high, bounds)}"
    )


def _cure(low: float, high: float, bounds: tuple[float, float]) -> str:
    """How to bring values into the bounds, or the bounds to the values."""
    scale = "scale the samples to that range"
    if bounds == (-1.0, 1.0) and low >= 0 and high <= 255:
        scale += f" ({'x * 2 - 1' if high < _BRIGHT else 'x / 127.5 - 1'})"
    return (
        f"{scale}, or set DATConfig.bounds (dat.bounds in a training configuration) to the range of the data, "
        "or to None for data without bounds"
    )


_BRIGHT = 2.0
"""Images in [0, 1] may reach a little above 1 where they were resized; of images in 0..255 few stay below this."""
