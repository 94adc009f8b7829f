"""Codecs: maps between data and latents that are not inverse to each other, so that a density of latents is not one of
data."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.transforms.base import Transform


class Codec(Transform):
    """An encoder and a decoder, such as an autoencoder: they run on their own device, `chunk` rows at a time."""

    chunk: int = 4

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Latents of data, on the device of the codec; differentiable."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Data of latents, on the device of the codec; differentiable."""

    def forward(self, x: Tensor) -> Tensor:
        """`encode` in chunks, on the device of x."""
        with torch.set_grad_enabled(x.requires_grad):
            parts = [self.encode(part).to(x.device) for part in x.split(self.chunk)] if len(x) else [self.encode(x)]
            return torch.cat(parts)

    def inverse(self, z: Tensor) -> Tensor:
        """`decode` in chunks, on the device of z."""
        with torch.set_grad_enabled(z.requires_grad):
            parts = [self.decode(part).to(z) for part in z.split(self.chunk)] if len(z) else [self.decode(z)]
            return torch.cat(parts)

    def log_det(self, x: Tensor) -> Tensor:
        """InputError, because a codec has no determinant."""
        raise InputError("got data for the density of a model of latents; pass their latents, "
                         "model.transform.encode(x), to a model with latents=True")

    def config(self) -> dict[str, Any]:
        """{"name": ...}; a codec is read with its pipeline, not from a configuration."""
        return {"name": self.name}
