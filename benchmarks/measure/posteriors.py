"""Posterior samplers against exact posteriors: with a mixture prior and a linear operator p(x | y) is a mixture too.

For every case and method: sliced W₂ to the exact posterior beside its floor (two exact samples), the accuracy of a
classifier that has to tell the samples from exact ones (C2ST, 0.5 is indistinguishable), the greatest error of a mode's
weight, the mean error of the marginal deviations, and how often central 50 % and 90 % intervals hold the truth.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure.laws import digits, rescaled
from undiffuse.errors import InputError
from undiffuse.inverse import Downsample, Fourier, Operator, box, gaussian_blur, observe, random_mask
from undiffuse.inverse.observe import observation
from undiffuse.inverse.operators import as_operator
from undiffuse.metrics import Estimate, c2st, sliced_w2
from undiffuse.mixture import Mixture
from undiffuse.model import Model
from undiffuse.processes import VP
from undiffuse.random import Purpose, normal, uniform
from undiffuse.samplers.driver import sample
from undiffuse.samplers.samples import Samples

RUNS: dict[str, tuple[dict[str, Any], int]] = {
    "replacement": ({}, 100), "repaint": ({"times": 5}, 50), "dps": ({}, 200), "diffpir": ({}, 100), "daps": ({}, 50),
    "pigdm": ({}, 50), "tmpd": ({}, 50), "wiener": ({}, 50), "mmps": ({}, 50), "gibbs": ({}, 20), "twisted": ({}, 100),
}
"""The options and the steps of each method; mmps is the default, twisted what exact=True takes."""
LIGHT = {**RUNS, "twisted": ({"particles": 64}, 50)}
"""The same with fewer particles and steps, for events of 64 numbers."""


@dataclass(frozen=True, eq=False)
class Case:
    """A law, an operator, and what was seen: y = A x + noise for one draw x of the law."""

    name: str
    law: Mixture
    operator: Any
    noise: float
    y: Tensor
    n: int = 512
    runs: Mapping[str, tuple[dict[str, Any], int]] = field(default_factory=lambda: RUNS)

    @cached_property
    def model(self) -> Model:
        """The exact denoiser of the prior."""
        return self.law.denoiser(VP())

    @cached_property
    def matrix(self) -> Tensor:
        """The operator as a matrix, for the entries that are seen."""
        seen = observation(self.model, self.operator, self.y, self.noise)
        assert seen.y is not None
        return seen.table[~seen.y.flatten().isnan()]

    @cached_property
    def truth(self) -> Mixture:
        """The exact posterior."""
        return posterior(self.law, self.matrix, self.operator, self.y, self.noise)

    @cached_property
    def log_evidence(self) -> float:
        """log p(y), closed."""
        A, y = self.matrix, as_operator(self.operator).mask_unobserved(self.y).flatten()
        cov = A @ self.law.covariances @ A.mT + self.noise**2 * torch.eye(len(A), dtype=torch.float64)
        seen = torch.distributions.MultivariateNormal(self.law.means.flatten(1) @ A.mT, cov)
        return float((self.law.weights.log() + seen.log_prob(y[~y.isnan()])).logsumexp(0))

    def draw(self, method: str, n: int | None = None, steps: int | None = None, **options: Any) -> Samples:
        """Samples of a method; "exact" is the denoiser of the true posterior under the default sampler."""
        given, count = ({}, 50) if method == "exact" else self.runs[method]
        model = (self.truth.denoiser(VP()) if method == "exact" else
                 observe(self.model, self.operator, self.y, self.noise, method, **{**given, **options}))
        many = self.n if n is None else n
        return sample(model, many, steps=steps or count, block=min(many, model.block))


@dataclass(frozen=True)
class Score:
    """What a method gives on a case."""

    case: str
    method: str
    sliced: float
    floor: float
    c2st: float
    weights: float
    deviations: float
    evaluations: int
    seconds: float


def posterior(law: Mixture, matrix: Tensor, operator: Any, y: Tensor, noise: float) -> Mixture:
    """The exact posterior given the observed entries of y."""
    values = as_operator(operator).mask_unobserved(y).flatten()
    return law.posterior(matrix, values[~values.isnan()], noise)


def observed(name: str, law: Mixture, operator: Any, noise: float, seed: int = 0, n: int = 512,
             runs: Mapping[str, tuple[dict[str, Any], int]] = RUNS) -> Case:
    """A case with the y of a draw of the law."""
    value = as_operator(operator)(law.sample(1, seed + 100))[0]
    return Case(name, law, operator, noise, value + noise * normal(seed, Purpose.DATA, 33, 0, 1, tuple(value.shape),
                                                                   torch.float64)[0], n, runs)


def four() -> Case:
    """Four modes at (±1, ±1) of unequal weights, seen along one axis."""
    law = Mixture([0.1, 0.4, 0.3, 0.2], [[1, 1], [1, -1], [-1, 1], [-1, -1]], 0.04)
    return Case("4 modes, 2-D", law, torch.tensor([[1.0, 0.0]]).double(), 0.1, torch.tensor([0.15]).double(), 1024)


def lattice(observations: int, seed: int = 0, noise: float = 0.05) -> Case:
    """25 modes on a lattice in 8 dimensions, of root mean variance ½, seen through random rows.

    Reference: Cardoso et al. (2024), MCGDiff, section 4. arXiv:2308.07983
    """
    means = 8 * torch.cartesian_prod(torch.arange(-2.0, 3), torch.arange(-2.0, 3)).double().repeat(1, 4)
    law = rescaled(Mixture(uniform(seed, Purpose.DATA, 30, 0, 25), means, 1.0), 0.5)
    rows = torch.linalg.qr(normal(seed, Purpose.DATA, 31, 0, 1, (8, 8), torch.float64)[0])[0][:observations]
    scale = uniform(seed, Purpose.DATA, 32, 0, 1, (observations,))[0].sort(descending=True).values
    return observed(f"25 modes, 8-D, {observations} seen", law, scale[:, None] * rows, noise, seed)


def images(seed: int = 0, noise: float = 0.1) -> list[Case]:
    """The digits as a mixture in 64 dimensions, seen through five operators."""
    flat = digits()
    law = Mixture(flat.weights, flat.means.reshape(-1, 1, 8, 8), flat.covariances)
    frequencies = torch.zeros(8, 5, dtype=torch.bool)
    frequencies[[0, 1, 2, 6, 7], :3] = True
    seen: dict[str, Operator] = {
        "digits, lower half hidden": box((1, 8, 8), 4, 0, 4, 8), "digits, 70 % hidden": random_mask((1, 8, 8), 0.7),
        "digits, blurred": gaussian_blur(1.0), "digits, 4x4": Downsample(2), "digits, low frequencies":
        Fourier(frequencies)}
    return [observed(name, law, operator, noise, seed, 256, LIGHT) for name, operator in seen.items()]


LAWS: dict[str, Callable[[], list[Case]]] = {
    "plane": lambda: [four()], "lattice": lambda: [lattice(1), lattice(4)], "digits": images,
}
"""The cases by the law they are of."""


def scores(methods: Iterable[str], on: Iterable[Case]) -> Iterator[Score]:
    """Every method on every case."""
    for case in on:
        for method in methods:
            begun = time.perf_counter()
            out = case.draw(method)
            yield score(case, method, out, time.perf_counter() - begun)


def score(case: Case, method: str, out: Samples, seconds: float = math.nan) -> Score:
    """How far samples are from the exact posterior, which is drawn eight times."""
    truth, x, n = case.truth, out.x.double(), len(out.x)
    exact = [truth.sample(n, seed) for seed in range(1, 9)]
    sliced = sum(sliced_w2(x, e) for e in exact) / 8
    floor = sum(sliced_w2(exact[k], exact[k - 1]) for k in range(8)) / 8
    weights = (truth.responsibilities(x).mean(0) - truth.weights).abs().max()
    sd = truth.covariance.diagonal().sqrt()
    return Score(case.name, method, sliced, floor, c2st(x, exact[0]), float(weights),
                 float((x.flatten(1).std(0) / sd - 1).abs().mean()), out.nfe, seconds)


def coverage(case: Case, method: str, truths: int = 64, draws: int = 59, steps: int | None = None,
             first: int = 0, **options: Any) -> dict[float, Estimate]:
    """How often central 50 % and 90 % intervals of `draws` samples hold the entries of x that y came from.

    The interval lies between two order statistics: of a truth and k exact draws every rank is equally likely, so that
    the one from the i-th to the j-th draw holds the truth with probability (j − i)/(k + 1), whatever the law. Standard
    errors are over the observations `first` to `first` + `truths` − 1. Entries that y all but says are left out.

    Reference: Talts et al. (2018), theorem 1. arXiv:1804.06788
    """
    wide = case.truth.covariance.diagonal() > case.noise**2 / 2
    ranks = []
    for k in range(first, first + truths):
        one = observed(case.name, case.law, case.operator, case.noise, 1000 + k, runs=case.runs)
        x = one.draw(method, draws, steps=steps, **options).x.double().flatten(1)
        ranks.append((x < case.law.sample(1, 1100 + k).flatten(1)).sum(0)[wide])
    return {level: held(torch.stack(ranks), draws, level) for level in (0.5, 0.9)}


def held(ranks: Tensor, draws: int, level: float) -> Estimate:
    """The share of ranks (observations, entries) of truths among `draws` samples that the central interval holds."""
    below = round((1 - level) / 2 * (draws + 1), 9)
    if below != int(below):
        raise InputError(f"got {draws} draws for intervals of {level:.0%}; expected 19, 39, 59, ..., for which there "
                         "are such intervals")
    share = ((ranks >= below) & (ranks <= draws - below)).double().mean(1)
    return Estimate(float(share.mean()), float(share.std()) / math.sqrt(len(share)))


def table(words: list[str] | None = None) -> Iterator[str]:
    """A row per method on every case; words: the methods, and the laws of the cases, of plane, lattice and digits."""
    laws = [word for word in words or () if word in LAWS] or list(LAWS)
    methods = [word for word in words or () if word not in LAWS] or ["exact", *RUNS]
    if unknown := [name for name in methods if name not in (*RUNS, "exact")]:
        raise InputError(f"got {unknown[0]!r}; expected methods, of {', '.join(RUNS)}, exact, or laws, of "
                         f"{', '.join(LAWS)}")
    for case in (case for law in laws for case in LAWS[law]()):
        yield f"{case.name}: log p(y) = {case.log_evidence:.2f}, {case.n} draws"
        yield (f"{'method':14}{'sliced W2':>11}{'floor':>8}{'C2ST':>8}{'weights':>9}{'deviations':>12}{'calls':>8}"
               f"{'seconds':>9}")
        for s in scores(methods, [case]):
            yield (f"{s.method:14}{s.sliced:11.4f}{s.floor:8.4f}{s.c2st:8.3f}{s.weights:9.3f}{s.deviations:12.3f}"
                   f"{s.evaluations:8}{s.seconds:9.1f}")
