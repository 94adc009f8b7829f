"""The result of `sample`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.samplers.default import describe


class DecodedStates(Sequence[tuple[float, Tensor]]):
    """The states of a trajectory in data units, each decoded when it is read."""

    def __init__(self, inverse: Callable[[Tensor], Tensor], stamps: list[float], states: list[Tensor]) -> None:
        self.inverse, self.stamps, self.states = inverse, stamps, states

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.stamps[index], self.inverse(self.states[index])


@dataclass(repr=False)
class Samples:
    """The result of `sample`.

    Args:
        x: the samples (n, *event) in data units, on the CPU.
        nfe: model evaluations per sample; for adaptive methods the median over samples.
        t: the times of the grid.
        method: name of the sampler: one of `ALL`, "tuned", "custom", or "required" for a model with its own sampler.
        grid: name of the time grid; "custom" for a tensor, "tuned" for fitted times.
        start: "prior", "x_T", or "moments": the first step is the Gaussian flow of the data's moments.
        start_level: noise level in standard deviations of the data at which the grid begins after the first step.
        tuned_for: the request that the sampler was tuned for; empty if it is not tuned.
        trajectory: (t, x) from t_start to the end, x in data units, the last one `x`; empty unless requested. Latents
            are decoded when an entry is read.
        nfe_per_sample: (n,), for adaptive methods.
        log_evidence: (n,), the estimate of log p(y) of the run of particles of each sample, for methods that make one.
        z: the samples (n, *shape) in model units; they are the latents of a model with a codec.
    """

    x: Tensor
    nfe: int
    t: Tensor
    method: str
    grid: str = ""
    start: str = "prior"
    start_level: float | None = None
    tuned_for: str = ""
    trajectory: Sequence[tuple[float, Tensor]] = field(default_factory=list)
    nfe_per_sample: Tensor | None = None
    log_evidence: Tensor | None = None
    z: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def sampler(self) -> str:
        """The sampler in one line."""
        tuned = f", tuned for {self.tuned_for}" if self.tuned_for else ""
        return describe(self.method, self.grid, self.start_level) + tuned

    def __len__(self) -> int:
        return len(self.x)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.x.numpy(), dtype, copy=bool(copy) or None)

    def __repr__(self) -> str:
        return f"Samples(x={tuple(self.x.shape)}, nfe={self.nfe}, method={self.method!r}, grid={self.grid!r})"
