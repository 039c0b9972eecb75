"""D's weights call by call: spectrally normalised, once a step or anew in every call of D."""

from __future__ import annotations

from fastdat.engine.spectral.normalise import dtype_under_autocast, normalise
from fastdat.engine.types import StepSpec, Tensors
from fastdat.engine.weight_norm import computed


class Weights:
    """Hands out D's weights for each of its calls in a step; u and v advance once a step, or in every call.

    Args:
        spec: which weights are normalised, and how often u advances.
        params: every parameter of D by name.
        buffers: u and v by name, before the step.
        in_full: give no weight in autocast's precision, since a function may read the weights itself.
    """

    def __init__(self, spec: StepSpec, params: Tensors, buffers: Tensors, in_full: bool = False) -> None:
        self._spec = spec
        names = dict(spec.aliases)
        self._params = {**params, **{alias: params[name] for alias, name in spec.aliases}}
        self._originals = [params[names.get(s.original, s.original)] for s in spec.spectral]
        self._states = [(buffers[s.u], buffers[s.v]) if s.u and s.v else None for s in spec.spectral]
        pairs = zip(spec.spectral, self._originals, strict=True)
        self._dtypes = [w.dtype if in_full else dtype_under_autocast(s, w) for s, w in pairs]
        self._last: tuple[Tensors, Tensors] | None = None

    def next(self, differentiable: bool) -> Tensors:
        """Weights of the next call of D, by name; constants unless ``differentiable``."""
        if self._last is None or self._spec.config.power_iterations == "per_forward":
            weights = self._advanced()
            self._last = weights, {name: weight.detach() for name, weight in weights.items()}
        return self._last[0 if differentiable else 1]

    def last(self) -> Tensors:
        """Weights of the last call of D, differentiable."""
        return self.next(True) if self._last is None else self._last[0]

    def _advanced(self) -> Tensors:
        specs = self._spec.spectral
        params = {**self._params, **computed(self._spec.normed, self._params)}
        if not specs:
            return params
        normalised, self._states = normalise(specs, self._originals, self._states, self._dtypes)
        return {**params, **{s.target: w for s, w in zip(specs, normalised, strict=True)}}

    def buffers(self) -> Tensors:
        """u and v as they are now, by name, of those weights whose power iteration runs."""
        moved: Tensors = {}
        for spec, state in zip(self._spec.spectral, self._states, strict=True):
            if spec.u and spec.v and spec.iterations and state is not None:
                moved[spec.u], moved[spec.v] = state
        return moved
