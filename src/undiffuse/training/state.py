"""What a training changes: weights, their average, the optimiser's moments, learned log-variances where the loss has
them, and a meter, each one tensor on the device.

Learned log-variances: how large the loss is at every noise level, learned beside the network, to divide by it.

    L = E[l(t) e^{−u(t)} + u(t)],  least where e^{u(t)} = E[l | t]

for the weighted error l of a sample. So every level has the same part in the loss, 1 at best, whatever its size was.
It is used in training only; what is sampled does not have it.

Reference: Karras et al. (2024), appendix B.2. arXiv:2312.02696; Kendall et al. (2018). arXiv:1705.07115
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from undiffuse.experiment import Experiment
from undiffuse.loss import LEARNED
from undiffuse.model import Denoiser
from undiffuse.nets import Sinusoidal
from undiffuse.training.ema import EXPONENTS, average_, decay, shares
from undiffuse.training.optimizers import Adam, Muon, flatten, learning_rate, parts, trained

FEATURES = 16


class Uncertainty:
    """u(t) = b + Σ a_k φ_k(¼ log(½ σ̂/σ_data)) with cosines and sines φ, 0 at first; b and a_k are learned by Adam."""

    def __init__(self, model: Denoiser, like: Tensor, betas: tuple[float, float]) -> None:
        self.model, self.features = model, Sinusoidal(FEATURES).to(like.device)
        vector = like.new_zeros(1 + FEATURES)
        self.optimizer, self.weights = Adam(vector, betas), vector.requires_grad_()

    def __call__(self, t: Tensor) -> Tensor:
        """u at times t (B,)."""
        waves: Tensor = self.features(self.model.level(t).to(self.weights))
        return self.weights[0] + waves @ self.weights[1:]

    def objective(self, losses: Tensor, t: Tensor) -> Tensor:
        """l e^{−u} + u for every row (B,)."""
        u = self(t)
        return losses * torch.exp(-u) + u

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of it."""
        named = {"": self.weights.detach(), ".m": self.optimizer.m, ".v": self.optimizer.v}
        return {f"uncertainty{name}": t for name, t in named.items()}


def blank(like: Tensor) -> dict[str, Tensor]:
    """A form for `tensors`."""
    return {f"uncertainty{name}": like.new_zeros(1 + FEATURES) for name in ("", ".m", ".v")}


class State:
    """A training after `step` updates: the model being trained, the model with the average of its weights.

    An update whose loss or gradient is not finite changes nothing, nor does any update after it: `made` stays the
    number of the updates made. Nothing is copied to the host, so that a GPU is never waited for.
    """

    def __init__(self, experiment: Experiment, model: Denoiser) -> None:
        self.experiment, self.model = experiment, model
        self.parameters = trained(model.net)
        self.weights = flatten(self.parameters.values())
        self.average = deepcopy(model).requires_grad_(False)
        self.average.moments = model.moments
        averages = dict(self.average.net.named_parameters())
        self.averaged = flatten(averages[name] for name in self.parameters)
        self.traces = self.weights.repeat(len(EXPONENTS), 1)
        self.optimizer = _optimizer(experiment, self.weights, model.net)
        self.uncertainty = (Uncertainty(model, self.weights[:0], experiment.betas)
                            if experiment.weighting == LEARNED else None)
        self.step = 0
        self.made = torch.zeros((), dtype=torch.int64, device=model.device)
        self.live = torch.ones((), dtype=self.weights.dtype, device=model.device)
        self.meter = torch.zeros(3, dtype=self.weights.dtype, device=model.device)
        size = len(self.weights) + (len(self.uncertainty.weights) if self.uncertainty else 0) + 1
        self._slope = torch.zeros(size, dtype=self.weights.dtype, device=model.device)

    @torch.no_grad()
    def update(self, slope: Tensor) -> None:
        """One update of everything from the slope of the batch's loss (`Team.total`), which is spoilt.

        The meter adds 1, the loss and the gradient's norm.
        """
        count = len(self.weights)
        gradient, beside, loss = slope[:count], slope[count:-1], slope[-1].clone()
        norm = gradient_norm(gradient)
        self.live.mul_(torch.isfinite(norm) & torch.isfinite(loss))
        limit = torch.inf if self.experiment.max_grad_norm is None else self.experiment.max_grad_norm
        gradient.mul_((limit / norm).clamp(max=1) * self.live).nan_to_num_(0.0)
        rate = learning_rate(self.experiment, self.step)
        self.optimizer.update(gradient, rate, self.step, self.live)
        if self.uncertainty:
            self.uncertainty.optimizer.update(beside.mul_(self.live).nan_to_num_(0.0), rate, self.step, self.live)
        average_(self.averaged, self.weights, (1 - decay(self.experiment.ema_decay, self.step)) * self.live)
        average_(self.traces, self.weights, shares(self.step, self.weights) * self.live)
        self.meter += torch.stack([self.live, loss, norm])
        self.made += self.live.long()
        self.step += 1

    def slope(self, loss: Tensor, shown: Tensor | None = None) -> Tensor:
        """The gradient of a loss, weights first, and behind it the loss that is shown; the next call overwrites it."""
        leaves = [*self.parameters.values(), *([self.uncertainty.weights] if self.uncertainty else [])]
        pieces = torch.autograd.grad(loss, leaves, materialize_grads=True)
        count = len(self.parameters)
        torch.cat([g.reshape(-1) for g in pieces[:count]], out=self._slope[: len(self.weights)])
        for beside in pieces[count:]:
            self._slope[len(self.weights) : -1] = beside
        self._slope[-1] = (loss if shown is None else shown).detach()
        return self._slope

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, for a checkpoint; the tensors are views, so that copying into them restores a state."""
        like = list(self.parameters.values())
        m, v = parts(self.optimizer.m, like), parts(self.optimizer.v, like)
        return {**_named(self.model, self.average.net, m, v, self.traces, self.meter), **self._beside()}

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
        return all(math.isfinite(torch.linalg.vector_norm(vector, math.inf))
                   for vector in (*vectors, *self._beside().values()))

    def _beside(self) -> dict[str, Tensor]:
        return self.uncertainty.tensors() if self.uncertainty else {}


def gradient_norm(gradient: Tensor) -> Tensor:
    """The Euclidean norm of a vector, from the norms of eight equal parts (the last one padded with zeros)."""
    short = -len(gradient) % 8
    padded = nn.functional.pad(gradient, (0, short)) if short else gradient
    norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in padded.chunk(8)]))
    return norm


def _optimizer(e: Experiment, weights: Tensor, net: nn.Module) -> Adam:
    if e.optimizer == "muon":
        return Muon(weights, e.betas, e.weight_decay, net)
    return Adam(weights, e.betas, e.weight_decay, e.optimizer == "adamw")


def schema(model: Denoiser, weighting: str = "edm") -> dict[str, Tensor]:
    """Tensors of the names, shapes and types that the checkpoints of a model have."""
    like = list(trained(model.net).values())
    beside = blank(like[0]) if weighting == LEARNED else {}
    return {**_named(model, model.net, like, like, traces(model), like[0].new_zeros(3)), **beside}


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
