"""PyTorch's Adam on one vector, and the learning rate of each step.

The parameters of the network are views of one vector; the optimiser, the clipping and the moving average are then ten
operations whatever the number of layers, and a checkpoint is exact because nothing else has a state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from undiffuse.experiment import Experiment

EPS = 1e-8


def learning_rate(experiment: Experiment, step: int) -> float:
    """The rate of update number `step` = 0, 1, ...: a linear rise over the warm-up, then the schedule.

    With u the share of the steps after the warm-up that is done: constant 1, linear 1 − u, cosine (1 + cos πu)/2.
    """
    if step < experiment.warmup:
        return experiment.lr * (step + 1) / experiment.warmup
    u = (step - experiment.warmup) / max(1, experiment.steps - experiment.warmup)
    shape = {"constant": 1.0, "linear": 1 - u, "cosine": (1 + math.cos(math.pi * u)) / 2}
    return experiment.lr * shape[experiment.schedule]


def trained(net: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are learned, by name."""
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def flatten(parameters: Iterable[nn.Parameter]) -> Tensor:
    """One vector of all these parameters, which become views of it."""
    parameters = list(parameters)
    vector = torch.cat([p.detach().reshape(-1) for p in parameters])
    for p, part in zip(parameters, parts(vector, parameters), strict=True):
        p.data = part
    return vector


def parts(vector: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The views of a vector that have the shapes of the parameters."""
    sizes = [p.numel() for p in parameters]
    pieces = torch.split(vector, sizes)
    return [piece.view(p.shape) for piece, p in zip(pieces, parameters, strict=True)]


class Adam:
    """PyTorch's fused Adam (`decoupled` = False, decay added to the gradient) or AdamW on one vector, changed in place.

    The functions, not the classes, whose first use imports torch._dynamo and takes a second in every process.

    Reference: Kingma and Ba (2015), algorithm 1. arXiv:1412.6980. Loshchilov and Hutter (2019). arXiv:1711.05101
    """

    def __init__(self, weights: Tensor, betas: tuple[float, float], weight_decay: float = 0.0,
                 decoupled: bool = False) -> None:
        self.weights, self.betas, self.weight_decay = weights, betas, weight_decay
        self.m, self.v = torch.zeros_like(weights), torch.zeros_like(weights)
        self._step, self._torch = torch.zeros((), device=weights.device), adamw if decoupled else adam

    @torch.no_grad()
    def update(self, gradient: Tensor, rate: float, step: int, live: Tensor) -> None:
        """Update number `step`; nothing changes where `live`, a scalar on the device, is 0."""
        self._torch([self.weights], [gradient], [self.m], [self.v], [], [self._step.fill_(step)], fused=True,
                    found_inf=1 - live.float(), amsgrad=False, beta1=self.betas[0], beta2=self.betas[1], lr=rate,
                    weight_decay=self.weight_decay, eps=EPS, maximize=False)
