"""Built-in data: points in the plane from stateless noise, where sample i is a function of (seed, i), and the digits of
scikit-learn, 1,797 handwritten digits of 8x8 pixels in 17 grey levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from undiffuse.data import validation
from undiffuse.data.dataset import TOY_NORMAL, TOY_UNIFORM, Dataset
from undiffuse.errors import InputError
from undiffuse.random import Purpose, normal, uniform


def digits(size: int | None = None) -> Dataset:
    """The handwritten digits, classes "0" to "9".

    Args:
        size: side in pixels to which images are resized; None: 8.

    Reference: Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI, test part.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(bunch.images.astype(np.uint8))[:, None]
    labels = [str(y) for y in bunch.target.tolist()]
    return validation.images(x, name="digits", levels=17, label_texts=labels, size=size)


HELD_OUT = 1 << 40  # index of the first held-out sample
_MAX_POINTS = 10_000_000
_NODES = 2048
_CHUNK = 1024

Points = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Spiral:
    """Archimedean spirals c(θ) = scale·θ (cos θ, sin θ), start ≤ θ ≤ end, in `arms` rotated copies.

    θ = √(start² + u (end² − start²)) with u uniform spreads the points almost evenly along the curve.

    Args:
        start: smallest angle θ, in radians.
        end: largest angle.
        scale: radius per radian.
        arms: number of copies, rotated by 2π/arms.
        noise: standard deviation of the Gaussian noise added to the points.
    """

    start: float
    end: float
    scale: float
    arms: int
    noise: float

    def curve(self, theta: Tensor) -> Tensor:
        """c(θ), a tensor (..., 2)."""
        return self.scale * theta[..., None] * self._frame(theta)[0]

    def derivatives(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """dc/dθ and d²c/dθ², tensors (..., 2)."""
        out, across = self._frame(theta)
        t = theta[..., None]
        return self.scale * (out + t * across), self.scale * (2 * across - t * out)

    def draw(self, u: Tensor, z: Tensor) -> Points:
        """Noisy points (N, 2) from uniforms u (N, 2) and normals z (N, 2), and their arms (N,) if arms > 1."""
        theta = (self.start**2 + u[:, 0] * (self.end**2 - self.start**2)).sqrt()
        arm = (u[:, 1] * self.arms).long()
        x = _rotate(self.curve(theta), arm * (2 * math.pi / self.arms))
        return x + self.noise * z, arm if self.arms > 1 else None

    def distance(self, x: Tensor) -> Tensor:
        """The distance (N,) of points (N, 2) to the nearest arm: the nearest node, then Newton steps."""
        turns = torch.arange(self.arms, dtype=torch.float64) * (2 * math.pi / self.arms)
        return torch.stack([self._to_first_arm(_rotate(x, -turn)) for turn in turns]).amin(0)

    def _to_first_arm(self, x: Tensor) -> Tensor:
        nodes = torch.linspace(self.start, self.end, _NODES, dtype=torch.float64)
        curve = self.curve(nodes)
        near = nodes[torch.cat([torch.cdist(part, curve).argmin(1) for part in torch.split(x, _CHUNK)])]
        theta = near
        for _ in range(3):
            theta = self._newton(x, theta).clamp(self.start, self.end)
        return torch.minimum(self._distance(x, near), self._distance(x, theta))

    def _newton(self, x: Tensor, theta: Tensor) -> Tensor:
        residual, (first, second) = x - self.curve(theta), self.derivatives(theta)
        square = first.square().sum(-1)
        return theta + (residual * first).sum(-1) / (square - (residual * second).sum(-1)).maximum(1e-3 * square)

    def _distance(self, x: Tensor, theta: Tensor) -> Tensor:
        return (x - self.curve(theta)).square().sum(-1).sqrt()

    def _frame(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The unit vectors along and across the ray of angle θ."""
        cos, sin = theta.cos(), theta.sin()
        return torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)


SPIRALS = {"swiss_roll": Spiral(1.5 * math.pi, 4.5 * math.pi, 0.1, arms=1, noise=0.0),
           "spiral": Spiral(0.5 * math.pi, 3 * math.pi, 0.15, arms=2, noise=0.03)}


def toy(name: str, n: int = 10_000, seed: int = 0, part: str = "train") -> Dataset:
    """Samples of a built-in distribution in the plane.

    Args:
        name: a key of `TOYS`.
        n: number of points.
        seed: random seed.
        part: "train", or "test": samples that no training set of this seed contains.

    Raises:
        InputError: if n is out of range.
    """
    if not 2 <= n <= _MAX_POINTS:
        raise InputError(f"got n={n}; expected 2 to {_MAX_POINTS:,}")
    first = 0 if part == "train" else HELD_OUT
    u = uniform(seed, Purpose.DATA, TOY_UNIFORM, first, n, (2,))
    z = normal(seed, Purpose.DATA, TOY_NORMAL, first, n, (2,), torch.float64)
    x, y = TOYS[name](u, z)
    classes = () if y is None else tuple(str(i) for i in range(_CLASSES[name]))
    return Dataset(x.float(), y, "points", name, classes, ("x1", "x2"))


def distance_to_curve(name: str, x: Tensor) -> Tensor:
    """The distance (N,) of points (N, 2) to the noiseless curve of a distribution.

    Args:
        name: "swiss_roll" or "spiral".
        x: points (N, 2).

    Raises:
        InputError: for another name or shape, or if a point is not finite.
    """
    if name not in SPIRALS:
        raise InputError(f"got {name!r}; expected a set with a curve: {', '.join(SPIRALS)}")
    if x.ndim != 2 or x.shape[1] != 2 or not x.isfinite().all():
        raise InputError(f"got points of shape {tuple(x.shape)}; expected finite numbers of shape (N, 2)")
    return SPIRALS[name].distance(x.detach().cpu().double())


def _moons(u: Tensor, z: Tensor) -> Points:
    """Two interleaved half circles of radius 1 with noise of standard deviation 0.05."""
    angle, lower = math.pi * u[:, 0], (u[:, 1] >= 0.5).long()
    arc = torch.stack([angle.cos(), angle.sin()], -1)
    other = torch.tensor([1.0, 0.5], dtype=torch.float64) - arc
    return torch.where(lower[:, None] == 1, other, arc) + 0.05 * z, lower


def _eight_gaussians(u: Tensor, z: Tensor) -> Points:
    """Eight Gaussians of equal weight and standard deviation 0.15 on a circle of radius √2."""
    mode = (8 * u[:, 0]).long()
    angle = mode * (math.pi / 4)
    return math.sqrt(2) * torch.stack([angle.cos(), angle.sin()], -1) + 0.15 * z, mode


def _checkerboard(u: Tensor, z: Tensor) -> Points:
    """Uniform on the dark unit squares of the board [−2, 2]²: those with ⌊x₁⌋ + ⌊x₂⌋ even."""
    x1 = 4 * u[:, 0] - 2
    offset = 2 * u[:, 1]  # which of the two dark squares of the column, and where in it
    x2 = offset.remainder(1) + 2 * offset.floor() - 2 + x1.floor().remainder(2)
    return torch.stack([x1, x2], -1), None


def _rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Points (N, 2) rotated by an angle, () or (N,)."""
    cos, sin = angle.double().cos(), angle.double().sin()
    return torch.stack([cos * x[:, 0] - sin * x[:, 1], sin * x[:, 0] + cos * x[:, 1]], -1)


TOYS: dict[str, Callable[[Tensor, Tensor], Points]] = {
    "swiss_roll": SPIRALS["swiss_roll"].draw, "moons": _moons, "8gaussians": _eight_gaussians,
    "checkerboard": _checkerboard, "spiral": SPIRALS["spiral"].draw}
_CLASSES = {"moons": 2, "8gaussians": 8, "spiral": 2}
