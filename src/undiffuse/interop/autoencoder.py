"""The autoencoder of a latent pipeline as a `Codec`: z = (encode − shift) · scale, images in grey levels 0 ... 255."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.transforms.codec import Codec


class Autoencoder(Codec):
    """A variational autoencoder of diffusers; its encoder gives the mean of a latent.

    Args:
        vae: the network.
        shape: shape of a latent.
    """

    name = "autoencoder"
    levels = 256

    def __init__(self, vae: Any, shape: tuple[int, ...]) -> None:
        config = vae.config
        if getattr(config, "latents_mean", None) or getattr(config, "latents_std", None):
            raise InputError("got an autoencoder with latents_mean and latents_std; expected one with scaling_factor")
        self.vae, self.shape = vae, shape
        self.scale, self.shift = float(config.scaling_factor), float(getattr(config, "shift_factor", None) or 0.0)

    def encode(self, x: Tensor) -> Tensor:
        """(B, channels, height, width) in grey levels to latents, float32."""
        weight = next(self.vae.parameters())
        images = (x.to(weight) * (2 / 255) - 1) if len(x) else x
        if not len(x):
            return torch.empty(0, *self.shape)
        mean: Tensor = self.vae.encode(images).latent_dist.mean
        return ((mean - self.shift) * self.scale).float()

    def decode(self, z: Tensor) -> Tensor:
        """Latents to (B, channels, height, width) in grey levels, float32, clamped."""
        weight = next(self.vae.parameters())
        if not len(z):
            factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
            return torch.empty(0, self.vae.config.out_channels, *(side * factor for side in self.shape[1:]))
        images: Tensor = self.vae.decode(z.to(weight) / self.scale + self.shift).sample
        return ((images.float() + 1) * 127.5).clamp(0, 255)
