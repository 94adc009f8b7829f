"""Distances between two sets of samples, their noise floors and standard errors.

Each distance takes x (n, *event) and y (m, *event) in equal units and returns a number. `noise_floor` gives its
value for two sets of real data, `with_error` its standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.random import Purpose, normal, permutation

Metric = Callable[[Tensor, Tensor], float]


class Estimate(NamedTuple):
    """A value and its standard error."""

    value: float
    stderr: float


def sliced_w2(x: Tensor, y: Tensor, projections: int = 128, seed: int = 0) -> float:
    """Sliced Wasserstein distance: the root mean square over random directions of W₂ between the projections.

    Args:
        x: Samples (n, *event).
        y: Samples (m, *event).
        projections: Number of directions.
        seed: Seed of the directions.

    Reference: Bonneel et al. (2015), "Sliced and Radon Wasserstein barycenters of measures".
    """
    x, y = _pair(x, y)
    directions = normal(seed, Purpose.PROBE, 0, 0, projections, x.shape[1:], torch.float64)
    directions = (directions / directions.norm(dim=1, keepdim=True)).mT
    return math.sqrt(float(_transport(x @ directions, y @ directions, 2).mean()))


def w1_1d(x: Tensor, y: Tensor) -> float:
    """The W₁ distance ∫ |F_x − F_y| of scalar samples (n, 1) and (m, 1), exact."""
    x, y = _pair(x, y)
    if x.shape[1] != 1:
        raise InputError(f"got samples of {x.shape[1]} numbers; expected one number each, or use sliced_w2")
    return float(_transport(x, y, 1))


def frechet(x: Tensor, y: Tensor) -> float:
    """The Fréchet distance ‖μ_x − μ_y‖² + tr(C_x + C_y − 2 (C_x C_y)^{½}) of two sets of features (n, d) and (m, d).

    Its value for two samples of one distribution decreases like d²/n; compare it with `noise_floor`.

    Reference: Dowson and Landau (1982); Heusel et al. (2017), arXiv:1706.08500, for features of a network.
    """
    x, y = _pair(x, y)
    if min(len(x), len(y)) < 2:
        raise InputError(f"got {len(x)} and {len(y)} samples; expected at least two of each")
    Cx, Cy = torch.cov(x.mT), torch.cov(y.mT)
    values, basis = torch.linalg.eigh(Cx)
    root = (basis * values.clamp_min(0).sqrt()) @ basis.mT
    cross = torch.linalg.eigvalsh(root @ Cy @ root).clamp_min(0).sqrt().sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + Cx.trace() + Cy.trace() - 2 * cross)


def mmd(x: Tensor, y: Tensor, bandwidth: float | None = None) -> float:
    """The squared maximum mean discrepancy E k(x,x') + E k(y,y') − 2 E k(x,y), k = exp(−‖x − y‖²/2b²).

    Unbiased: about 0, of either sign, for two samples of one distribution.

    Args:
        x: Samples (n, *event).
        y: Samples (m, *event).
        bandwidth: b; default the median distance between x and y.

    Reference: Gretton et al. (2012), "A kernel two-sample test", eq. 3.
    """
    x, y = _pair(x, y)
    b = bandwidth or float(torch.cdist(x[:1000], y[:1000]).median())
    return _discrepancy(x, y, lambda r: torch.exp(-0.5 * (r / b) ** 2))


def energy(x: Tensor, y: Tensor) -> float:
    """The energy distance 2 E‖x − y‖ − E‖x − x'‖ − E‖y − y'‖, unbiased, without a parameter.

    Reference: Székely and Rizzo (2013), "Energy statistics", section 2.
    """
    x, y = _pair(x, y)
    return _discrepancy(x, y, torch.neg)


def nearest_distance(x: Tensor, train: Tensor) -> Tensor:
    """The Euclidean distance from each x to its nearest training sample, (n,): small if the model memorises.

    Compare its median with the median for held-out real data.
    """
    x, train = _pair(x, train)
    return torch.cat([torch.cdist(rows, train).amin(1) for rows in torch.split(x, 256)])


def ks_radius(radii: Tensor, dim: int) -> float:
    """The Kolmogorov-Smirnov distance of within-mode radii to the Gaussian ones, √χ²_d; 0 to 1, noise about 0.87/√n.

    Args:
        radii: Mahalanobis distances to the centre of the mode, such as `Mixture.radii(x)`, (n,).
        dim: Number of coordinates d.
    """
    return float(stats.kstest(radii.double().square().numpy(), stats.chi2(dim).cdf).statistic)


def classifier(x: Tensor, y: Tensor, *, limit: int = 10_000) -> Callable[[Tensor], Tensor]:
    """A classifier trained on real data: a function from x (n, *event) to labels (n,).

    A support vector machine with a Gaussian kernel on the first 64 principal components.

    Args:
        x: Real samples (n, *event).
        y: Their labels (n,).
        limit: Largest number of training rows.
    """
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC

    rows = permutation(0, Purpose.ORDER, 0, len(x))[:limit]
    inputs, targets = _rows(x[rows]), y[rows]
    reduce = PCA(min(64, *inputs.shape), random_state=0)
    machine = make_pipeline(reduce, SVC(C=10.0)).fit(inputs.numpy(), targets.numpy())
    return lambda new: torch.from_numpy(machine.predict(_rows(new).numpy()))


def agreement(predicted: Tensor, labels: Tensor) -> Estimate:
    """The fraction of samples whose predicted label equals the requested one, with its binomial standard error."""
    if predicted.shape != labels.shape or len(labels) == 0:
        raise InputError(f"got {tuple(predicted.shape)} predictions for {tuple(labels.shape)} labels; expected equal "
                         "shapes")
    p = float((predicted == labels).double().mean())
    return Estimate(p, math.sqrt(p * (1 - p) / len(labels)))


def c2st(x: Tensor, y: Tensor, folds: int = 5) -> float:
    """Classifier two-sample test: held-out accuracy of a classifier of x against y, 0.5 for equal distributions.

    A network with two hidden layers on standardised values, cross-validated; standard error about 0.5/√(n + m).

    Args:
        x: Samples (n, *event).
        y: Other samples (m, *event).
        folds: Number of folds of the cross-validation.

    Reference: Lopez-Paz and Oquab (2017), "Revisiting classifier two-sample tests". arXiv:1610.06545
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = _pair(x, y)
    rows, target = torch.cat([x, y]).numpy(), np.repeat([0, 1], [len(x), len(y)])
    network = MLPClassifier((64, 64), alpha=1e-2, max_iter=200, early_stopping=True, random_state=0)
    split = StratifiedKFold(folds, shuffle=True, random_state=0)
    return float(cross_val_score(make_pipeline(StandardScaler(), network), rows, target, cv=split).mean())


def noise_floor(metric: Metric, real_a: Tensor, real_b: Tensor, repeats: int = 16, seed: int = 0) -> Estimate:
    """The value of a metric for two sets of real data: mean and standard deviation over random re-divisions.

    Args:
        metric: A function of two sets (n, *event).
        real_a: Real samples; its length is kept.
        real_b: Other real samples.
        repeats: Number of re-divisions of the union.
        seed: Random seed.
    """
    pool, n = torch.cat([real_a, real_b]), len(real_a)
    orders = [permutation(seed, Purpose.ORDER, i, len(pool)) for i in range(repeats)]
    values = np.array([metric(pool[order[:n]], pool[order[n:]]) for order in orders])
    return Estimate(float(values.mean()), float(values.std(ddof=1)))


def with_error(metric: Metric, x: Tensor, y: Tensor, parts: int = 8) -> Estimate:
    """A metric of x and y with a standard error from its values on disjoint parts of both.

    Args:
        metric: A function of two sets (n, *event).
        x: Samples.
        y: Other samples.
        parts: Number of parts.
    """
    values = [metric(x[i::parts], y[i::parts]) for i in range(parts)]
    return Estimate(metric(x, y), float(np.std(values, ddof=1)) / math.sqrt(parts))


def _transport(x: Tensor, y: Tensor, p: int) -> Tensor:
    """∫₀¹ |F_x⁻¹ − F_y⁻¹|ᵖ for each column of x (n, c) and y (m, c): the quantile functions are step functions."""
    n, m = len(x), len(y)
    levels = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).sort().values
    width = torch.diff(levels, prepend=torch.zeros(1, dtype=levels.dtype)).double() / (n * m)
    difference = x.sort(0).values[(levels - 1) // m] - y.sort(0).values[(levels - 1) // n]
    return width @ difference.abs() ** p


def _discrepancy(x: Tensor, y: Tensor, kernel: Callable[[Tensor], Tensor]) -> float:
    """E k(x,x') + E k(y,y') − 2 E k(x,y) for a kernel of the distance, without pairs of a sample with itself."""
    if min(len(x), len(y)) < 2:
        raise InputError(f"got {len(x)} and {len(y)} samples; expected at least two of each")

    def total(a: Tensor, b: Tensor) -> float:
        return math.fsum(float(kernel(torch.cdist(rows, b)).sum()) for rows in torch.split(a, 512))

    def inner(a: Tensor) -> float:
        return (total(a, a) - len(a) * float(kernel(a.new_zeros(())))) / (len(a) * (len(a) - 1))

    return inner(x) + inner(y) - 2 * total(x, y) / (len(x) * len(y))


def _pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two sets of samples as float64 rows of one length."""
    if x.shape[1:] != y.shape[1:] or min(len(x), len(y)) == 0:
        raise InputError(f"got samples of shapes {tuple(x.shape)} and {tuple(y.shape)}; expected two non-empty sets of "
                         "the same event")
    return _rows(x), _rows(y)


def _rows(x: Tensor) -> Tensor:
    return x.detach().cpu().double().reshape(len(x), -1)


def crps(draws: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """The continuous ranked probability score E|X − y| − ½ E|X − X'|, without bias; |X − y| for one draw.

    Args:
        draws: samples X (k, n).
        truth: values y (n,).

    Reference: Gneiting and Raftery (2007), eq. 21; Zamo and Naveau (2018), eq. 3 (PWM).
    """
    k = len(draws)
    error = np.abs(draws - truth).mean(0)
    if k == 1:
        return np.asarray(error)
    weights = (2 * np.arange(1, k + 1) - k - 1)[:, None] / (k * (k - 1))
    return np.asarray(error - (weights * np.sort(draws, 0)).sum(0))
