"""The data distributions of the page: Gaussian mixtures, embedded in the page as JSON.

`mixture("ring")` is the page's "ring". Parameters are rounded to six digits, so that the page and Python use equal
numbers.
"""

from __future__ import annotations

import base64
import math
import string
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from undiffuse.data.toys import SPIRALS, digits, toy
from undiffuse.errors import InputError
from undiffuse.mixture import Mixture

Array = NDArray[np.float64]
_RIDGE = 0.01
_LETTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase + "!#%*+-./:"


class MixtureParams(NamedTuple):
    """Parameters of a mixture: title, weights (K,), means (K, d), covariances (K, d, d), classes (K,)."""

    title: str
    weights: Array
    means: Array
    covariances: Array
    labels: list[int] | None = None


def mixture(name: str) -> Mixture:
    """The page's data distribution of that name.

    Args:
        name: a key of `MIXTURES`, or "digits" (ten classes of 8 × 8 pixels).

    Raises:
        InputError: if there is no such name.
    """
    if name == "digits":
        means, covariances = _digit_moments()
        return Mixture(np.ones(10), means.reshape(10, 1, 8, 8), covariances, labels=range(10))
    if name not in MIXTURES:
        raise InputError(f"got mixture {name!r}; expected one of {', '.join((*MIXTURES, 'digits'))}")
    parts = _parts(name)
    return Mixture(parts.weights, parts.means, parts.covariances, labels=parts.labels)


def mixtures() -> dict[str, dict[str, Any]]:
    """The mixtures of one and two dimensions as JSON values."""
    return {name: {"title": parts.title, "weights": parts.weights.tolist(), "means": parts.means.tolist(),
                   "covariances": parts.covariances.reshape(len(parts.weights), -1).tolist(), "labels": parts.labels}
            for name, parts in ((name, _parts(name)) for name in MIXTURES)}


def digits_data() -> str:
    """The digits mixture as base64 float16: 10 means of 64 pixels, then 10 lower triangles of 64 × 64, row by row."""
    means, covariances = _digit_moments()
    rows, columns = np.tril_indices(64)
    packed = np.concatenate([means.ravel(), covariances[:, rows, columns].ravel()]).astype("<f2")
    return base64.b64encode(packed.tobytes()).decode("ascii")


def training_data() -> str:
    """All training digits as text: two letters per three values of (64 grey levels, class, 0), each value below 17."""
    data = digits()
    assert data.y is not None
    rows = torch.cat([data.x.flatten(1).long(), data.y.long()[:, None], torch.zeros(len(data.x), 1).long()], 1)
    triples = (rows.reshape(-1, 3) * torch.tensor([1, 17, 17 * 17])).sum(1).tolist()
    return "".join(_LETTERS[v // len(_LETTERS)] + _LETTERS[v % len(_LETTERS)] for v in triples)


@cache
def _digit_moments() -> tuple[Array, Array]:
    """Mean and covariance of every digit class, grey levels in [−1, 1], rounded to float16.

    1 % of the mean variance is added to the variance of every pixel, so that constant pixels have a density.
    """
    data = digits()
    x, y = data.x.double().flatten(1).numpy() / 8 - 1, data.y
    assert y is not None
    ridge = _RIDGE * float(x.var(0).mean())
    groups = [x[(y == label).numpy()] for label in range(10)]
    means = np.stack([rows.mean(0) for rows in groups])
    covariances = np.stack([np.cov(rows.T, bias=True) + ridge * np.eye(64) for rows in groups])
    return _half(means), _half(covariances)


def _half(x: Array) -> Array:
    return x.astype(np.float16).astype(np.float64)


@cache
def _parts(name: str) -> MixtureParams:
    title, weights, means, covariances, labels = MIXTURES[name]()
    return MixtureParams(title, _six(weights), _six(means), _six(covariances), labels)


def _six(x: Array) -> Array:
    """`x` rounded to six significant digits."""
    return np.array([float(f"{value:.6g}") for value in np.asarray(x).ravel()]).reshape(np.shape(x))


def _round(title: str, weights: Any, means: Any, stds: Any, labels: list[int] | None = None) -> MixtureParams:
    """A mixture of isotropic components."""
    centres = np.asarray(means, np.float64).reshape(len(weights), -1)
    spread = np.broadcast_to(np.asarray(stds, np.float64), len(weights))
    return MixtureParams(title, np.asarray(weights, np.float64), centres,
                         spread[:, None, None] ** 2 * np.eye(centres.shape[1]), labels)


def _along(title: str, points: Array, width: float, labels: list[int] | None = None) -> MixtureParams:
    """One component per point of a curve, elongated along the tangent and `width` wide."""
    tangent = np.gradient(points, axis=0) / 2
    covariances = 0.8 * tangent[:, :, None] * tangent[:, None] + width**2 * np.eye(2)
    return MixtureParams(title, np.linalg.norm(tangent, axis=1), points, covariances, labels)


def _ring() -> MixtureParams:
    angle = 2 * math.pi * np.arange(8) / 8
    means = 2 * np.stack([np.cos(angle), np.sin(angle)], 1)
    return _round("Eight on a ring", np.ones(8), means, 0.22, [k % 2 for k in range(8)])


def _swiss() -> MixtureParams:
    curve = SPIRALS["swiss_roll"]
    u = (torch.arange(48, dtype=torch.float64) + 0.5) / 48
    theta = (curve.start**2 + u * (curve.end**2 - curve.start**2)).sqrt()
    return _along("Swiss roll", 2 * curve.curve(theta).numpy(), 0.07)


def _moons() -> MixtureParams:
    angle = math.pi * (np.arange(14) + 0.5) / 14
    upper = np.stack([np.cos(angle), np.sin(angle)], 1)
    halves = [_along("", 1.4 * points, 0.1) for points in (upper - [0.5, 0.25], [0.5, 0.25] - upper)]
    weights, means, covariances = (np.concatenate(parts) for parts in zip(*(half[1:4] for half in halves), strict=True))
    return MixtureParams("Two moons", weights, means, covariances, [0] * 14 + [1] * 14)


def _checkerboard() -> MixtureParams:
    corners = [(i, j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0]
    offsets = [(a, b) for a in (0.25, 0.75) for b in (0.25, 0.75)]
    means = np.array([(i + a, j + b) for i, j in corners for a, b in offsets]) * 1.2
    return _round("Checkerboard", np.ones(len(means)), means, 0.19)


def _smiley() -> MixtureParams:
    face = 2 * math.pi * np.arange(28) / 28
    mouth = math.pi * (1.15 + 0.7 * (np.arange(9) + 0.5) / 9)
    means = np.concatenate([2.2 * np.stack([np.cos(face), np.sin(face)], 1), [[-0.75, 0.7], [0.75, 0.7]],
                            1.2 * np.stack([np.cos(mouth), np.sin(mouth)], 1)])
    return _round("Smiley", [*[1.0] * 28, 4.0, 4.0, *[0.9] * 9], means, [*[0.16] * 28, 0.2, 0.2, *[0.13] * 9])


def _blobs() -> MixtureParams:
    covariances = [[[0.5, 0.35], [0.35, 0.4]], [[0.15, 0.0], [0.0, 0.6]], [[0.6, -0.2], [-0.2, 0.2]]]
    return MixtureParams("Three unequal blobs", np.array([0.5, 0.2, 0.3]),
                         np.array([[-1.4, -0.8], [1.9, 0.5], [-0.2, 1.8]]),
                         np.array(covariances), [0, 1, 2])


def _overlap() -> MixtureParams:
    covariances = [[[0.7, 0.3], [0.3, 0.35]], [[0.5, -0.25], [-0.25, 0.6]]]
    return MixtureParams("Two that overlap", np.array([0.5, 0.5]), np.array([[-0.8, -0.2], [0.9, 0.3]]),
                         np.array(covariances), [0, 1])


def _points() -> MixtureParams:
    return _round("Forty training points", np.ones(40), 1.6 * (toy("moons", 40).x.double().numpy() - [0.5, 0.25]), 0.1)


MIXTURES: dict[str, Callable[[], MixtureParams]] = {
    "bimodal": lambda: _round("Two modes", [0.4, 0.6], [-2.0, 1.5], [0.35, 0.55], [0, 1]),
    "far": lambda: _round("Two modes at ±5", [0.5, 0.5], [-5.0, 5.0], 1.0, [0, 1]),
    "trimodal": lambda: _round("Three modes", [0.25, 0.45, 0.3], [-2.2, 0.0, 2.4], [0.25, 0.4, 0.3], [0, 1, 2]),
    "gaussian": lambda: _round("One Gaussian", [1.0], [0.5], 0.7),
    "point": lambda: _round("A single point", [1.0], [1.0], 0.02),
    "two_points": lambda: _round("Two points", [0.5, 0.5], [-1.5, 1.5], 0.02, [0, 1]),
    "ring": _ring, "swiss": _swiss, "moons": _moons, "checkerboard": _checkerboard, "smiley": _smiley,
    "blobs": _blobs, "overlap": _overlap, "points": _points,
}
"""Constructors of the mixtures by name."""
