"""The linear part of a conditional model: the best linear prediction of the data from the conditions.

    μ(c) = μ + (φ(c) − φ̄) B,   C = Cov[x − μ(c)],   D(x, c) = μ(c) + W_C (x/α − μ(c)) + the network's correction

with features φ(c): numbers and vectors as they are, classes one-hot. B is a ridge regression, or least squares on the
significant features; the correlations of what is left are shrunk towards 0. For jointly Gaussian data and conditions it
is exact: p(x|c) = N(μ(c), C). A row with a hidden condition has the mean and covariance of all the data.

Reference: Hoerl and Kennard (1970); Golub, Heath and Wahba (1979), eq. 1.4, for the penalty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from undiffuse.moments.linear_part import Moments, padded_product
from undiffuse.transforms.conditions import Condition, split

_PENALTIES = [10.0**k for k in range(-8, 3)]  # fractions of the mean square of a feature
_FEWEST = 3  # rows per feature below which there is no regression
_CACHED = 64  # conditions whose moments are remembered

Preconditioned = tuple[Tensor, Callable[[Tensor], Tensor]]
"""The input of a network, and the function from its output to the denoiser."""


@dataclass(frozen=True)
class Regression:
    """The mean of the data given features of the conditions, and the covariance that is left.

    Args:
        within: Mean μ of the data and covariance of what the features leave.
        centre: Mean of the features φ̄, (p,).
        coefficients: B (p, d), float64.
    """

    within: Moments
    centre: Tensor
    coefficients: Tensor

    @classmethod
    def measure(cls, z: Tensor, features: Tensor, marginal: Moments) -> Regression:
        """The regression of data on features; 0, which leaves the marginal moments, where there are too few rows.

        Args:
            z: Data in model units (n, *event).
            features: Features (n, p), NaN where hidden.
            marginal: The moments of all the data.
        """
        visible = cls.visible(features)
        rows, phi = z[visible].flatten(1).double(), features[visible].double()
        if len(rows) < _FEWEST * (phi.shape[1] + 1):
            return replace(cls.blank(marginal.shape, marginal.kind, phi.shape[1]), within=marginal)
        mean, centre = rows.mean(0), phi.mean(0)
        coefficients, freedom = _fit(phi - centre, rows - mean)
        left = rows - mean - (phi - centre) @ coefficients
        within = _shrunk(left.reshape(-1, *z.shape[1:]), freedom)
        return cls(replace(within, mean=mean), centre, coefficients)

    @classmethod
    def blank(cls, shape: tuple[int, ...], kind: str, features: int) -> Regression:
        """A regression of zeros in the form of `measure`, to be filled from a checkpoint."""
        zeros = torch.zeros(features, math.prod(shape), dtype=torch.float64)
        return cls(Moments.blank(shape, kind), zeros[:, 0].clone(), zeros)

    def shift(self, features: Tensor) -> Tensor:
        """μ(c) − μ of features (B, p), shaped (B, *event); 0 for a row with a hidden feature."""
        centred = (features.double() - self.centre.to(features.device)).nan_to_num(0.0)
        rows = padded_product(centred, self._padded.to(features.device), self.coefficients.shape[1])
        return (rows * self.visible(features)[:, None]).reshape(-1, *self.within.shape)

    @staticmethod
    def visible(features: Tensor) -> Tensor:
        """Whether no feature of a row is hidden, (B,)."""
        return ~features.isnan().any(1)

    def moments(self, features: Tensor) -> Moments:
        """The mean μ(c) and covariance C for features (1, p); one object for equal features, with its caches."""
        key = features.cpu().numpy().tobytes()
        if key not in self._by_features:
            if len(self._by_features) >= _CACHED:
                self._by_features.clear()
            self._by_features[key] = replace(self.within, mean=self.within.mean + self.shift(features).flatten().cpu())
        return self._by_features[key]

    def precondition(self, marginal: Moments, features: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor,
                     directions: bool) -> Preconditioned:
        """`Moments.precondition` around μ(c) with the covariance C; rows with a hidden feature around μ with all of it.

        Args:
            marginal: The moments of all the data.
            features: Features (B, p), NaN where hidden.
            x: Noisy states (B, *event).
            alpha: Mean coefficient, () or (B,).
            sigma: Noise standard deviation, () or (B,).
            directions: Whether input and correction have a scale per direction.
        """
        visible, shift = self.visible(features), self.shift(features).to(x)
        if not bool(visible.any()):
            return marginal.precondition(x, alpha, sigma, directions)
        per_row = (-1, *[1] * len(self.within.shape))
        centred = x - alpha.to(x).reshape(per_row) * shift
        inputs, denoised = self.within.precondition(centred, alpha, sigma, directions)
        if bool(visible.all()):
            return inputs, lambda F: shift + denoised(F)
        all_inputs, all_denoised = marginal.precondition(x, alpha, sigma, directions)
        of = visible.reshape(per_row)
        return (torch.where(of, inputs, all_inputs),
                lambda F: torch.where(of, shift + denoised(F), all_denoised(F)))

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint stores."""
        within = {f"within.{name}": value for name, value in self.within.tensors().items()}
        return {"centre": self.centre, "coefficients": self.coefficients, **within}

    def restored(self, tensors: dict[str, Tensor]) -> Regression:
        """This regression with the tensors of a checkpoint."""
        own = {name: tensors[name] for name in ("centre", "coefficients")}
        within = {name.removeprefix("within."): value for name, value in tensors.items() if name not in own}
        return Regression(Moments.from_config(self.within.config(), within), **own)

    @cached_property
    def _by_features(self) -> dict[bytes, Moments]:
        return {}

    @cached_property
    def _padded(self) -> Tensor:
        short = -len(self.coefficients) % 8
        return torch.nn.functional.pad(self.coefficients, (0, 0, 0, short))


def feature_count(conditions: Sequence[Condition], classes: int) -> int:
    """The number of features of conditions and classes."""
    return classes + sum(len(c.vocabulary) if c.kind == "class" else c.width
                         for c in conditions if c.kind != "words")


def features_of(conditions: Sequence[Condition], rows: Tensor | None, classes: int, label: Tensor | None) -> Tensor:
    """φ(c), (B, p), float64: one-hot classes, numbers and vectors in the network's units; NaN where hidden.

    Args:
        conditions: The conditions of a model.
        rows: Their numbers in the network's units (B, width); None without conditions.
        classes: Number of classes; the label `classes` is hidden.
        label: Labels (B,); None without classes.
    """
    parts = []
    if label is not None and classes:
        parts.append(_one_hot(torch.where(label < classes, label.double(), torch.nan)[:, None], classes))
    for condition, piece in zip(conditions, split(conditions, rows).values() if rows is not None else (), strict=True):
        if condition.kind == "class":
            parts.append(_one_hot(piece, len(condition.vocabulary)))
        elif condition.kind != "words":
            parts.append(piece.double())
    return torch.cat(parts, 1)


def _one_hot(code: Tensor, count: int) -> Tensor:
    """Unit vectors (B, count) of class numbers (B, 1); NaN where the number is."""
    hot = torch.nn.functional.one_hot(code[:, 0].nan_to_num(0.0).long(), count).double()
    return torch.where(code.isnan(), torch.nan, hot)


def _fit(phi: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """B (p, d) of centred features (n, p) and data (n, d), and its degrees of freedom per entry (d,).

    Per entry the better one by the Bayesian information criterion: ridge regression, or least squares on the features
    whose coefficients are significant. Reference: Schwarz (1978), "Estimating the dimension of a model".
    """
    (B, freedom), (sparse, fewer) = _ridge(phi, x), _significant(phi, x)
    n = len(phi)

    def criterion(b: Tensor, count: Tensor) -> Tensor:
        return n * (x - phi @ b).square().mean(0).clamp_min(1e-300).log() + math.log(n) * count

    better = criterion(sparse, fewer) < criterion(B, freedom)
    return torch.where(better, sparse, B), torch.where(better, fewer, freedom)


def _ridge(phi: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression with the penalty of the smallest generalised cross-validation error."""
    n = len(phi)
    u, singular, vt = torch.linalg.svd(phi, full_matrices=False)
    projected, total = u.mT @ x, x.square().sum()
    scale = singular.square().sum() / max(1, len(singular))
    best: tuple[float, Tensor] | None = None
    for penalty in _PENALTIES:
        share = singular.square() / (singular.square() + penalty * scale)
        left = float(total - ((2 * share - share**2)[:, None] * projected.square()).sum())
        error = left / (1 - float(share.sum()) / n) ** 2
        if best is None or error < best[0]:
            best = error, share
    assert best is not None
    inverse = torch.where(singular > 0, best[1] / singular.clamp_min(1e-300), 0.0)
    return vt.mT @ (inverse[:, None] * projected), best[1].sum().expand(x.shape[1])


def _significant(phi: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares of each entry on the features whose t-values exceed √(2 log(p d)), the largest one of pure noise.

    Reference: Donoho and Johnstone (1994), section 2.
    """
    inverse = torch.linalg.pinv(phi.mT @ phi)
    B = inverse @ phi.mT @ x
    spread = (x - phi @ B).square().sum(0) / max(1, len(phi) - phi.shape[1])
    t = B.abs() / (inverse.diagonal()[:, None] * spread).clamp_min(1e-300).sqrt()
    significant = t > math.sqrt(2 * math.log(max(2, B.numel())))
    sparse = torch.zeros_like(B)
    for j in range(x.shape[1]):
        chosen = significant[:, j]
        sparse[chosen, j] = torch.linalg.lstsq(phi[:, chosen], x[:, j : j + 1]).solution[:, 0]
    return sparse, significant.sum(0).to(x)


def _shrunk(left: Tensor, freedom: Tensor) -> Moments:
    """Moments of residuals (n, *event), with the variances freed of bias and the correlations shrunk towards 0.

    Reference: Schäfer and Strimmer (2005), section 2.4 and table 1.
    """
    n, flat = len(left), left.flatten(1)
    std = flat.square().mean(0).sqrt().clamp_min(1e-150)
    u = flat / std
    correlation = u.mT @ u / n
    variance = (u.square().mT @ u.square() / n - correlation**2) / n
    apart = ~torch.eye(len(std), dtype=torch.bool)
    total = correlation[apart].square().sum()
    keep = 1 - float((variance[apart].sum() / total).clamp(0, 1)) if bool(total > 0) else 1.0
    correlation = torch.where(apart, keep * correlation, correlation)
    scale = std * (n / (n - 1 - freedom)).sqrt()
    return Moments.of_covariance(tuple(left.shape[1:]), torch.zeros_like(std), scale[:, None] * correlation * scale)
