"""How far draws lie from a law that is known by draws: what decides between samplers with noise, of which no path is
the right one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from undiffuse.metrics import frechet, sliced_w2
from undiffuse.noise import Purpose, normal

_CHANNELS, _GRID, _NUMBERS = (16, 32), 3, 64


class Likeness:
    """The distance of draws (n, *event) to some known draws of a law: for images the Fréchet distance of 64 random
    features, for all else sliced W₂."""

    def __init__(self, known: Tensor) -> None:
        self.known, self.image = known.cpu(), known.ndim == 4
        self.low, self.high = self.known.amin(), self.known.amax()
        self.there = random_features(self.known) if self.image else self.known.double()
        self.scale = float(self.there.std(0).mean()) if self.image else 1.0

    def __call__(self, x: Tensor) -> float:
        """The distance of these draws."""
        if not self.image:
            return sliced_w2(x, self.there)
        seen = random_features(x.to(self.known).clamp(self.low, self.high))
        return frechet(seen / self.scale, self.there / self.scale)


def random_features(x: Tensor) -> Tensor:
    """Two convolutions of 5 × 5 and stride 2 with ReLU, means over 3 × 3 places, and 64 sums of those, (n, 64): all
    weights are normals of a fixed seed, so that nothing is trained and no labels are needed."""
    for layer, width in enumerate(_CHANNELS):
        weight = _weights(layer, (width, x.shape[1], 5, 5), x)
        x = torch.nn.functional.conv2d(x, weight, stride=2, padding=2).relu()
    flat = torch.nn.functional.adaptive_avg_pool2d(x, _GRID).flatten(1)
    return (flat @ _weights(len(_CHANNELS), (_NUMBERS, flat.shape[1]), x).mT).double()


def _weights(layer: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
    return normal(0, Purpose.WEIGHTS, layer, 0, shape[0], shape[1:]).to(like) / math.sqrt(math.prod(shape[1:]))
