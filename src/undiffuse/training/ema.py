"""The moving average of the weights, which is what is sampled; a pure function of the weights after each update."""

from __future__ import annotations

from torch import Tensor


def decay(limit: float, update: int) -> float:
    """The share of the average that survives update number 0, 1, ...: min(limit, (1 + k)/(10 + k)).

    The ramp keeps about the last tenth of a young training, so that the average does not remember the start.
    """
    return min(limit, (1 + update) / (10 + update))


def average_(average: Tensor, weights: Tensor, share: float | Tensor) -> None:
    """Moves the average towards the weights, in place: a ← a + (1 − decay) (w − a), with share = 1 − decay."""
    average.lerp_(weights, share)
