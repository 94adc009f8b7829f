"""Whether a configuration says what its network means: the error of D by noise level, under each reading.

E‖D(x_0 + σ̂ ε) − x_0‖² falls with σ̂ for the right reading, and another prediction type gives less error for a wrong one.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from undiffuse.model import Denoiser
from undiffuse.random import Purpose, normal
from undiffuse.samplers.driver import sample
from undiffuse.sde import bcast

_LEVELS = (0.1, 0.3, 1.0, 3.0)
_ALTERNATIVES = {"noise": "v", "v": "noise", "data": "noise", "edm": "edm_v", "edm_v": "edm"}


def check_reading(model: Denoiser, x0: Tensor | None = None, *, n: int = 4, **cond: Any) -> list[str]:
    """Lines that say whether the denoising error falls with the noise, and which prediction type has less of it.

    Args:
        model: a pretrained model.
        x0: data (n, *event) in data units; None: samples of the model, which say less.
        n: number of own samples.
        cond: conditions such as prompt.
    """
    if x0 is None and model.classes and not cond:
        cond = {"label": 0}
    z = sample(model, n, steps=10, **cond).z if x0 is None else model.transform.forward(x0).float()
    errors = _errors(model, z, cond)
    lines = [f"denoising error at noise levels {', '.join(f'{v:g}' for v in _LEVELS)}: "
             f"{', '.join(f'{e:.3g}' for e in errors)} of the data's variance"]
    if any(b < 0.8 * a for a, b in pairwise(errors)) or errors[0] > 1:
        lines.append("warning: the error does not fall with the noise; the configuration may not say what the network "
                     "was trained on")
    other = _ALTERNATIVES.get(model.prediction_type)
    if other is not None:
        ratio = sum(_errors(_reread(model, other), z, cond)) / sum(errors)
        if ratio < 0.8:
            lines.append(f"warning: read as {other} the error is {ratio:.2g} times as large; "
                         f"prediction_type={model.prediction_type} may be wrong")
    return lines


@torch.no_grad()
def _errors(model: Denoiser, z: Tensor, cond: dict[str, Any]) -> list[float]:
    """The mean square of D − z per level, in units of the variance of z."""
    levels = torch.tensor(_LEVELS, dtype=torch.float64).log() + z.double().std().log()
    values = []
    for k, t in enumerate(model.sde.time_of(-levels)):
        eps = normal(0, Purpose.PROBE, k, 0, len(z), model.shape, z.dtype)
        alpha, sigma = (bcast(c, z) for c in (model.sde.alpha(t), model.sde.sigma(t)))
        D = model.denoise((alpha * z + sigma * eps).to(model.device), t, **cond).cpu()
        values.append(float((D - z).square().mean() / z.var()))
    return values


def _reread(model: Denoiser, prediction_type: str) -> Denoiser:
    """The same network under another prediction type."""
    other = Denoiser(model.net, model.sde, replace(model.reading, prediction_type=prediction_type), shape=model.shape,
                     sigma_data=model.sigma_data, classes=model.classes, block=model.block,
                     conditions=model.conditions)
    return other
