"""A network that corrects the Gaussian law of missing values of windows, where the data are not Gaussian.

With m and s the mean and standard deviation of a missing value under the law, z the law's draw in these units, and
f, g the outputs of a convolutional network of the window filled with m, the pattern of missing values, log s, and the
phase of the period, a draw is

    x = m + s f + s e^g q(z)

so that the dependence of the missing values on one another is the law's. f and g minimise the CRPS of a normal
distribution on observed values that are hidden; q, an odd increasing function, makes the hidden values of held-out
windows uniform in rank. With f = g = 0 and q(z) = z the draw is the law's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from undiffuse.inverse.window_law import Conditional, WindowLaw
from undiffuse.nets import initialize, zero
from undiffuse.random import Purpose, permutation, uniform

_WIDTH, _DEPTH = 48, 4
PAIRS, TESTED = 8000, 600
"""Windows with hidden values for training, and for the choice."""
_EPOCHS, _BATCH, _RATE, _DECAY = 6, 64, 2e-3, 0.05
_FEW = 4000  # windows below which they are used twice as often
_DROPOUT, _AVERAGE = 0.2, 0.01
_EVERY = 200  # updates between measurements
_CHUNK = 512
_LEAST = 1e-3  # smallest standard deviation that enters
_STREAMS = 1 << 41  # of random numbers, in the steps of Purpose.DATA
_RANKS = torch.linspace(0, 2.6, 27, dtype=torch.float64)  # |z| at which q is measured


class GapNet(nn.Module):
    """Dilated convolutions along the time of windows: location f and log-scale g of every value.

    A convolution of three steps is a matrix times the values one dilation before, at and after every step, which on a
    CPU takes half the time.

    Args:
        channels: number of channels.
        width: width of the blocks.
        depth: number of blocks, with dilations 1, 2, 4, ...
    """

    def __init__(self, channels: int, width: int = _WIDTH, depth: int = _DEPTH) -> None:
        super().__init__()
        self.first = nn.Linear(3 * (3 * channels + 2), width)
        self.norms = nn.ModuleList(WindowNorm(width) for _ in range(2 * depth))
        self.inner = nn.ModuleList(nn.Linear(3 * width, width) for _ in range(depth))
        self.outer = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = zero(nn.Linear(width, 2 * channels))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """f and g, (B, C, T).

        Args:
            x: inputs (B, 3 C + 2, T).
            keep: factors of the hidden units (depth, B, T, width) in training; None: 1.
        """
        h = self.first(_neighbours(x.mT, 1))
        for k, (inner, outer) in enumerate(zip(self.inner, self.outer, strict=True)):
            u = nn.functional.silu(self.norms[2 * k](h))
            u = nn.functional.silu(self.norms[2 * k + 1](inner(_neighbours(u, 1 << k))))
            h = h + outer(u if keep is None else u * keep[k])
        f, g = self.last(h).mT.chunk(2, 1)
        return f, g


class WindowNorm(nn.Module):
    """Normalises groups of a quarter of the features of a window over all its steps, so that steps remain comparable.

    Reference: Wu and He (2018), group normalisation. arXiv:1803.08494
    """

    def __init__(self, width: int, groups: int = 4) -> None:
        super().__init__()
        self.groups = groups
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, h: Tensor) -> Tensor:
        """h (B, T, width), normalised."""
        parts = h.unflatten(2, (self.groups, -1))
        var, mean = torch.var_mean(parts, (1, 3), correction=0, keepdim=True)
        scaled: Tensor = ((parts - mean) * (var + 1e-5).rsqrt()).flatten(2)
        return scaled * self.weight + self.bias


def _neighbours(h: Tensor, distance: int) -> Tensor:
    """The values (B, T, 3 w) one distance before, at and after every step of h (B, T, w); 0 beyond the ends."""
    padded = nn.functional.pad(h, (0, 0, distance, distance))
    steps = h.shape[1]
    return torch.cat([padded[:, :steps], h, padded[:, 2 * distance:]], 2)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Windows with hidden values, under a law.

    Args:
        x: windows (n, C, T); 0 where unknown.
        mean: the windows with missing and hidden values replaced by their conditional means.
        std: conditional standard deviations, 0 where observed.
        hidden: which values are hidden (n, C, T).
        begins: step at which each window begins (n,).
    """

    x: Tensor
    mean: Tensor
    std: Tensor
    hidden: Tensor
    begins: Tensor

    @classmethod
    def make(cls, law: WindowLaw, x: Tensor, begins: Tensor, n: int, seed: int) -> Pairs:
        """n windows of x (N, C, T), NaN where missing, with values hidden as by `hide`."""
        order = torch.cat([permutation(seed, Purpose.DATA, _STREAMS + k, len(x)) for k in range(-(-n // len(x)))])[:n]
        rows, at = x[order].double(), begins[order]
        hidden = hide(rows, x, seed)
        gone = rows.isnan() | hidden
        mean = rows.nan_to_num(0.0).contiguous()
        std = torch.zeros_like(mean)
        for i in range(n):
            flat = gone[i].flatten()
            if bool(flat.any()):
                posterior = law.posterior(mean[i].reshape(1, -1), flat, int(at[i]))
                mean[i].view(-1)[flat], std[i].view(-1)[flat] = posterior.mean[0], posterior.std
        return cls(rows.nan_to_num(0.0), mean, std, hidden, at)

    def inputs(self, index: Tensor, period: int) -> Tensor:
        """Inputs of the network for some of the windows."""
        return network_inputs(self.mean[index], self.std[index], self.begins[index], period)


def network_inputs(mean: Tensor, std: Tensor, begins: Tensor, period: int) -> Tensor:
    """Inputs (B, 3 C + 2, T) of the network.

    Args:
        mean: windows with missing values at their conditional means (B, C, T).
        std: conditional standard deviations, 0 where observed.
        begins: step at which each window begins (B,).
        period: steps of the period; 0: none.
    """
    gone = std > 0
    steps = begins[:, None] + torch.arange(mean.shape[2])
    phase = 2 * math.pi * (steps % max(period, 1)).double() / max(period, 1)
    clock = torch.stack([phase.cos(), phase.sin()], 1) if period else mean.new_zeros(len(mean), 2, mean.shape[2])
    logs = torch.where(gone, (std + 0.02).log(), 0.0)
    return torch.cat([mean, gone.double(), logs, clock], 1).float()


def hide(rows: Tensor, x: Tensor, seed: int) -> Tensor:
    """Which observed values of windows are hidden: mostly in the pattern of another window, if the data have missing
    values; else single values, intervals of a channel, or all values from a step on, as in a forecast.

    Args:
        rows: windows (n, C, T).
        x: all windows (N, C, T).
        seed: seed of the random numbers.
    """
    n, C, T = rows.shape
    u = uniform(seed, Purpose.DATA, _STREAMS + 1001, 0, n, (5,))
    other = x[(u[:, 0] * len(x)).long()].isnan()
    share = 0.7 if float(x.isnan().double().mean()) > 0.005 else 0.0
    points = uniform(seed, Purpose.DATA, _STREAMS + 1002, 0, n, (C, T)) < (0.05 + 0.5 * u[:, 1])[:, None, None]
    v = uniform(seed, Purpose.DATA, _STREAMS + 1003, 0, n, (C, 3))
    start, length = (v[..., 0] * T).floor(), 1 + (v[..., 1] * T / 2).floor()
    steps = torch.arange(T)
    runs = (steps >= start[..., None]) & (steps < (start + length)[..., None]) & (v[..., 2:] < 0.5)
    tail = (steps >= (T * (0.25 + 0.7 * u[:, 2])).floor()[:, None, None]).expand(n, C, T)
    other_kind = 1 + torch.bucketize(u[:, 4].contiguous(), torch.tensor([0.25, 0.5], dtype=torch.float64))
    kind = torch.where(u[:, 3] < share, 0, other_kind)
    chosen = torch.stack([other, points, runs, tail], 1)[torch.arange(n), kind]
    return chosen & ~rows.isnan()


def normal_crps(error: Tensor, std: Tensor) -> Tensor:
    """CRPS of N(0, std²) at an error. Reference: Gneiting and Raftery (2007), eq. 21."""
    z = error / std
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return std * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))


def relative_crps(error: Tensor, std: Tensor, hidden: Tensor, f: Tensor | None = None, g: Tensor | None = None
                  ) -> Tensor:
    """CRPS on hidden values, in units of its expectation under the law, the mean over the windows.

    Args:
        error: value less conditional mean (n, C, T).
        std: conditional standard deviation.
        hidden: which values count.
        f: location of the correction; None: that of the law.
        g: its log-scale.
    """
    s = std.clamp_min(_LEAST)
    crps = normal_crps(error, s) if f is None or g is None else normal_crps(error - s * f, s * g.exp())
    some = hidden.flatten(1).any(1)
    ratio = (crps * hidden).flatten(1).sum(1)[some] * math.sqrt(math.pi) / (s * hidden).flatten(1).sum(1)[some]
    return ratio.mean()


@dataclass(frozen=True, eq=False)
class Correction:
    """Corrects draws of a `WindowLaw`; see the module.

    Args:
        net: the network.
        ranks: q at `_RANKS`.
        shape: C and T.
        period: steps of the period; 0: none.
    """

    net: GapNet
    ranks: Tensor
    shape: tuple[int, int]
    period: int

    def __call__(self, x: Tensor, missing: Tensor, begin: int, posterior: Conditional, eps: Tensor) -> Tensor:
        """A `Corrector`."""
        C, T = self.shape
        mean, std = x.double().clone(), torch.zeros_like(missing, dtype=torch.float64)
        mean[:, missing], std[missing] = posterior.mean, posterior.std.clamp_min(_LEAST)
        inputs = network_inputs(mean.reshape(-1, C, T), std.reshape(1, C, T).expand(len(x), C, T),
                                torch.full((len(x),), begin), self.period)
        f, g = self._outputs(inputs)
        f, g = f.flatten(1)[:, missing], g.flatten(1)[:, missing]
        s = posterior.std
        return posterior.mean + s * f + s * g.exp() * self.quantile((posterior.draw(eps) - posterior.mean) / s)

    def quantile(self, z: Tensor) -> Tensor:
        """q(z), continued linearly."""
        step = float(_RANKS[1] - _RANKS[0])
        k = (z.abs() / step).floor().clamp(max=len(_RANKS) - 2).long()
        left, right = self.ranks[k], self.ranks[k + 1]
        return z.sign() * (left + (z.abs() / step - k) * (right - left))

    @torch.no_grad()
    def _outputs(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        f, g = zip(*(self.net(part) for part in inputs.split(_CHUNK)), strict=True)
        return torch.cat(f).double(), torch.cat(g).double()

    def score(self, pairs: Pairs) -> float:
        """`relative_crps` with q(z) = z."""
        f, g = self._outputs(pairs.inputs(torch.arange(len(pairs.x)), self.period))
        return float(relative_crps(pairs.x - pairs.mean, pairs.std, pairs.hidden, f, g))

    def calibrated(self, pairs: Pairs) -> Correction:
        """The correction with q measured on hidden values."""
        f, g = self._outputs(pairs.inputs(torch.arange(len(pairs.x)), self.period))
        h, s = pairs.hidden, pairs.std.clamp_min(_LEAST)
        size = ((pairs.x - pairs.mean - s * f) / (s * g.exp()))[h].abs()
        ranks = torch.quantile(size, torch.erf(_RANKS / math.sqrt(2)).clamp(max=1.0)) if len(size) < 1 << 24 else _RANKS
        ranks[0] = 0.0
        return Correction(self.net, ranks, self.shape, self.period)


def fit_correction(law: WindowLaw, train: Pairs, test: Pairs, seed: int = 0) -> Correction | None:
    """The correction with the smallest `relative_crps` on held-out windows; None if that is the law's.

    Args:
        law: the law.
        train: windows from which the network learns.
        test: held-out windows.
        seed: seed of the random numbers.
    """
    C, _ = law.shape
    net, average = GapNet(C), GapNet(C)
    for one in (net, average):
        initialize(one, seed)
    optimizer = torch.optim.AdamW(net.parameters(), _RATE, weight_decay=_DECAY, betas=(0.9, 0.99))
    candidate = Correction(average, _RANKS, law.shape, law.period)
    best, weights = candidate.score(test), None
    steps = max(1, _EPOCHS * (1 + (len(train.x) < _FEW)) * len(train.x) // _BATCH)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = _RATE * min(1.0, (step + 1) / 50) * (1 - step / steps)
        loss = _loss(net, train, law.period, step, seed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for a, b in zip(average.parameters(), net.parameters(), strict=True):
                a.lerp_(b, max(_AVERAGE, 1 / (step + 1)))
        due = (step + 1) % _EVERY == 0 or step + 1 == steps
        if due and (score := candidate.score(test)) < best:
            best, weights = score, [p.clone() for p in average.parameters()]
    if weights is None:
        return None
    _set(average, weights)
    return candidate.calibrated(test)


@torch.no_grad()
def _set(net: nn.Module, values: Sequence[Tensor]) -> None:
    for parameter, value in zip(net.parameters(), values, strict=True):
        parameter.copy_(value)


def _loss(net: GapNet, pairs: Pairs, period: int, step: int, seed: int) -> Tensor:
    """`relative_crps` of a batch."""
    index = (uniform(seed, Purpose.ORDER, step, 0, _BATCH) * len(pairs.x)).long()
    T = pairs.x.shape[2]
    u = uniform(seed, Purpose.DROPOUT, step, 0, _DEPTH * _BATCH, (T, _WIDTH), torch.float32)
    keep = (u >= _DROPOUT).float().reshape(_DEPTH, _BATCH, T, _WIDTH) / (1 - _DROPOUT)
    f, g = net(pairs.inputs(index, period), keep)
    error = (pairs.x[index] - pairs.mean[index]).float()
    return relative_crps(error, pairs.std[index].float(), pairs.hidden[index], f, g)
