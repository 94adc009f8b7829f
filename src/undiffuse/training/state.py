"""What a training changes: weights, their average, the moments of Adam and a meter, each one tensor on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from undiffuse.experiment import Experiment
from undiffuse.model import Denoiser
from undiffuse.training.ema import EXPONENTS, average_, decay, shares
from undiffuse.training.optim import Adam, flatten, learning_rate, parts, trained


class State:
    """A training after `step` updates: the model being trained, the model with the average of its weights.

    An update whose loss or gradient is not finite changes nothing, nor does any update after it: `made` stays the
    number of the updates made. Nothing is copied to the host, so that a GPU is never waited for.
    """

    def __init__(self, experiment: Experiment, model: Denoiser) -> None:
        self.experiment, self.model, self.average = experiment, model, deepcopy(model).requires_grad_(False)
        self.average.moments = model.moments
        self.parameters = trained(model.net)
        self.weights = flatten(self.parameters.values())
        self.averaged = flatten(dict(self.average.net.named_parameters())[name] for name in self.parameters)
        self.traces = self.weights.repeat(len(EXPONENTS), 1)
        self.optimizer = Adam(self.weights, experiment.betas, experiment.weight_decay, experiment.optimizer == "adamw")
        self.step = 0
        self.made = torch.zeros((), dtype=torch.int64, device=model.device)
        self.live = torch.ones((), dtype=self.weights.dtype, device=model.device)
        self.meter = torch.zeros(3, dtype=self.weights.dtype, device=model.device)
        self._slope = torch.empty(len(self.weights) + 1, dtype=self.weights.dtype, device=model.device)

    @torch.no_grad()
    def update(self, slope: Tensor) -> None:
        """One update of everything from the slope of the batch's loss, which is spoilt.

        The meter adds 1, the loss and the gradient's norm.
        """
        gradient, loss = slope[:-1], slope[-1].clone()
        norm = torch.linalg.vector_norm(gradient)
        self.live.mul_(torch.isfinite(norm) & torch.isfinite(loss))
        limit = torch.inf if self.experiment.clip is None else self.experiment.clip
        gradient.mul_((limit / norm).clamp(max=1) * self.live).nan_to_num_(0.0)
        self.optimizer.update(gradient, learning_rate(self.experiment, self.step), self.step, self.live)
        average_(self.averaged, self.weights, (1 - decay(self.experiment.ema, self.step)) * self.live)
        average_(self.traces, self.weights, shares(self.step, self.weights) * self.live)
        self.meter += torch.stack([self.live, loss, norm])
        self.made += self.live.long()
        self.step += 1

    def slope(self, loss: Tensor) -> Tensor:
        """The gradient of a loss and behind it the loss, as one vector, which the next call overwrites."""
        pieces = torch.autograd.grad(loss, list(self.parameters.values()), materialize_grads=True)
        last = loss.detach().to(self._slope.dtype)
        return torch.cat([g.reshape(-1) for g in (*pieces, last)], out=self._slope)

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, for a checkpoint; the tensors are views, so that copying into them restores a state."""
        like = list(self.parameters.values())
        m, v = parts(self.optimizer.m, like), parts(self.optimizer.v, like)
        return _named(self.model, self.average.net, m, v, self.traces, self.meter)

    def restore(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """The state of a checkpoint."""
        for name, t in self.tensors().items():
            t.copy_(tensors[name])
        self.stand(step)

    def stand(self, step: int) -> None:
        """Says that so many updates have been made."""
        self.step = step
        self.made.fill_(step)

    def finite(self) -> bool:
        """Whether every number of the state is finite."""
        vectors = (self.weights, self.averaged, self.traces, self.optimizer.m, self.optimizer.v)
        return all(bool(torch.isfinite(vector).all()) for vector in vectors)


def schema(model: Denoiser) -> dict[str, Tensor]:
    """Tensors of the names, shapes and types that the checkpoints of a model have."""
    like = list(trained(model.net).values())
    return _named(model, model.net, like, like, traces(model), like[0].new_zeros(3))


def traces(model: Denoiser) -> Tensor:
    """A form for the power averages of a model's weights, (2, P)."""
    like = list(trained(model.net).values())
    return like[0].new_zeros(len(EXPONENTS), sum(p.numel() for p in like))


def _named(model: Denoiser, average: nn.Module, m: Sequence[Tensor], v: Sequence[Tensor], powers: Tensor,
           meter: Tensor) -> dict[str, Tensor]:
    tensors = {f"{kind}.{name}": t for kind, owner in (("net", model.net), ("ema", average))
               for name, t in owner.state_dict().items()}
    for kind, vectors in (("m", m), ("v", v)):
        tensors |= {f"adam.{kind}.{name}": t for name, t in zip(trained(model.net), vectors, strict=True)}
    measured = {} if model.moments is None else model.moments.tensors()
    return {**tensors, **{f"moments.{name}": t for name, t in measured.items()}, "traces": powers, "meter": meter}
