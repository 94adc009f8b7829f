"""Augmentation of images: mirrored and moved, each by a draw that is a function of (seed, step, slot)."""

from __future__ import annotations

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.experiment import Experiment
from undiffuse.noise import Purpose, uniform


def check(experiment: Experiment, shape: tuple[int, ...]) -> None:
    """InputError where an augmentation is asked for that these data cannot have."""
    asked = experiment.flip or experiment.shift > 0
    if asked and len(shape) != 3:
        raise InputError(f"got flip={experiment.flip}, shift={experiment.shift} for data of shape {shape}; only images "
                         "are augmented, so leave them out")
    if asked and experiment.shift >= min(shape[1:]):
        raise InputError(f"got shift={experiment.shift} for images of {shape[2]}x{shape[1]}; expected less than a side")


def augment(x: Tensor, experiment: Experiment, step: int, first: int) -> Tensor:
    """Images (B, C, H, W) of the slots `first` ... of a step: each mirrored left to right with probability ½ if
    `flip`, and moved by −shift ... shift pixels down and right, pixels at the edge being repeated."""
    if not (experiment.flip or experiment.shift):
        return x
    n, reach, (height, width) = len(x), experiment.shift, x.shape[-2:]
    u = uniform(experiment.seed, Purpose.AUGMENT, step, first, n, (3,)).to(x.device, non_blocking=True)
    down, right = ((2 * reach + 1) * u[:, :2]).long().sub(reach).unbind(1)
    mirrored = (u[:, 2] < 0.5) & experiment.flip
    row = torch.arange(height, device=x.device).sub(down[:, None]).clamp(0, height - 1)
    column = torch.arange(width, device=x.device).sub(right[:, None]).clamp(0, width - 1)
    column = torch.where(mirrored[:, None], width - 1 - column, column)
    each = torch.arange(n, device=x.device)[:, None, None]
    return x[each, :, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2).contiguous()
