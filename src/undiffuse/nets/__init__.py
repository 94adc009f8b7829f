"""Networks F(x, c, label, conditions) for x (B, *shape) of unit variance, noise levels c (B,), labels (B,) or None.

Every constructor takes `shape` (of the event) and `classes` (0: none) first; all arguments are JSON values. With
`conditions`, the forms of further conditions, a network takes their numbers (B, width) too, NaN where unknown.

embeddings: noise level and conditions; mlp: points, tables, small images; unet, dit: images
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import torch
from torch import nn

from undiffuse.errors import InputError, did_you_mean
from undiffuse.nets.dit import DiT
from undiffuse.nets.embeddings import ConditionEmbedding, FiLM, GaussianFourier, Sinusoidal, zero
from undiffuse.nets.mlp import MLP
from undiffuse.nets.unet import UNet
from undiffuse.random import Purpose, normal

__all__ = ["MLP", "NETS", "ConditionEmbedding", "DiT", "FiLM", "GaussianFourier", "Sinusoidal", "UNet", "build",
           "initialize",
           "zero"]

NETS: dict[str, type[nn.Module]] = {"mlp": MLP, "unet": UNet, "dit": DiT}
"""Networks by name."""


def build(name: str, shape: Sequence[int], classes: int = 0, **args: Any) -> nn.Module:
    """The network of a name for events of a shape; InputError for an unknown name or argument.

    Args:
        name: one of `NETS`.
        shape: shape of an event.
        classes: number of classes; 0: no labels.
        args: further arguments of the network.
    """
    if name not in NETS:
        raise InputError(f"got net {name!r}; expected one of {', '.join(NETS)}{did_you_mean(name, NETS)}")
    try:
        return NETS[name](tuple(shape), classes, **args)
    except TypeError as error:
        raise InputError(f"got {args} for net {name!r}; {error}") from None


@torch.no_grad()
def initialize(net: nn.Module, seed: int) -> nn.Module:
    """Fills the parameters of a network, in place, as a pure function of the seed and their names.

    Matrices and kernels get N(0, 1/fan-in), embeddings N(0, 1), scales of norms 1, biases 0; all parameters of modules
    marked by `zero` get 0.
    """
    for path, module in net.named_modules():
        is_zero = getattr(module, "zero_init", False)
        for name, parameter in module.named_parameters(recurse=False):
            if is_zero or parameter.ndim < 2:
                parameter.fill_(0.0 if is_zero or name != "weight" else 1.0)
                continue
            fan_in = 1 if isinstance(module, nn.Embedding) else math.prod(parameter.shape[1:])
            address = crc32(f"{path}.{name}".lstrip(".").encode())
            z = normal(seed, Purpose.WEIGHTS, address, 0, 1, tuple(parameter.shape))[0]
            parameter.copy_(z / math.sqrt(fan_in))
    return net
