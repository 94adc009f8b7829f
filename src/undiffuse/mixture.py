"""Gaussians and Gaussian mixtures: the diffused density, score and denoiser are known in closed form at every t.

Each covariance is diagonalised once, Σ_k = Q_k diag(ℓ_k) Q_kᵀ. x_t has components N(α μ_k, α² Σ_k + σ² I) with the same
Q_k, so each evaluation is two matrix products and arithmetic on the spectra.

Reference: Efron (2011), Tweedie's formula. Bishop (2006), "Pattern recognition and machine learning", 2.3 and 9.2.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor

from undiffuse.errors import InputError, unknown_condition
from undiffuse.model import Model
from undiffuse.moments import Moments
from undiffuse.random import Purpose, normal, raw_words, uniform
from undiffuse.sde import GaussianSDE, Time, as_time
from undiffuse.tensors import ArrayLike, as_rows, as_tensor


class MonteCarloEstimate(NamedTuple):
    """A value and its standard error."""

    value: Tensor
    stderr: Tensor


class _Components(NamedTuple):
    """States x_t in the eigenbases: log w_k N_k(x) (B, K), coordinates y/s and variances s (B or 1, K, d)."""

    log_joint: Tensor
    scaled: Tensor
    spread: Tensor


class Mixture:
    """The Gaussian mixture p(x_0) = Σ_k w_k N(μ_k, Σ_k), in float64.

    Args:
        weights: w_k ≥ 0 (K,); normalised here.
        means: μ_k (K, *shape), or (K,) for scalars, which have shape (1,).
        covariances: Σ_k (K, d, d) over the flattened event, or isotropic variances (K,) or (); 0 (point masses) is
            valid wherever only x_t with σ > 0 is evaluated.
        labels: Class 0 ... C−1 of each component (K,); makes `label=` a condition of the denoiser.

    Raises:
        InputError: For negative weights, and covariances that are not symmetric and positive semi-definite.
    """

    def __init__(self, weights: Any, means: Any, covariances: Any, *, labels: Any = None) -> None:
        means, cov = _real(means, "means"), _real(covariances, "covariances")
        if means.ndim == 0:
            raise InputError("got a single number as means; expected one mean per component, of shape (K, *event)")
        means = means[:, None] if means.ndim == 1 else means
        basis, spectrum = _eigen(cov, len(means), means[0].numel())
        self._fill(_real(weights, "weights"), means, basis, spectrum, labels)

    def _fill(self, weights: Tensor, means: Tensor, basis: Tensor, spectrum: Tensor, labels: Any) -> None:
        if weights.shape != means.shape[:1] or not (weights >= 0).all() or not weights.sum() > 0:
            raise InputError(f"got weights {tuple(weights.tolist())} for {len(means)} means; expected as many numbers "
                             "≥ 0 as means, and not all 0")
        self.weights, self.means, self.shape = weights / weights.sum(), means, tuple(means.shape[1:])
        self.labels = None if labels is None else torch.as_tensor(labels).long()
        self.classes = 0 if self.labels is None else int(self.labels.max()) + 1
        if self.labels is not None and (self.labels.shape != weights.shape or self.labels.min() < 0):
            raise InputError(f"got labels {self.labels.tolist()}; expected a class ≥ 0 for each of {len(means)} means")
        self._basis, self._spectrum = basis, spectrum
        self._flat = means.reshape(len(means), -1)
        self._wide = basis.transpose(0, 1).reshape(self.dim, -1)
        self._centres = torch.einsum("kij,ki->kj", basis, self._flat)

    @property
    def dim(self) -> int:
        """The number of coordinates d."""
        return math.prod(self.shape)

    @property
    def covariances(self) -> Tensor:
        """Σ_k, (K, d, d)."""
        return self._basis * self._spectrum[:, None] @ self._basis.mT

    @property
    def mean(self) -> Tensor:
        """E x_0, of shape `shape`."""
        return (self.weights @ self._flat).reshape(self.shape)

    @property
    def covariance(self) -> Tensor:
        """Cov x_0 = Σ_k w_k (Σ_k + (μ_k − μ)(μ_k − μ)ᵀ), (d, d)."""
        apart = self._flat - self.mean.reshape(-1)
        return torch.einsum("k,kij->ij", self.weights, self.covariances + apart[:, :, None] * apart[:, None])

    @overload
    def sample(self, n: int, seed: int = 0, first_index: int = 0, labels: Literal[False] = False) -> Tensor:
        """Samples (n, *shape)."""

    @overload
    def sample(self, n: int, seed: int = 0, first_index: int = 0, *,
               labels: Literal[True]) -> tuple[Tensor, Tensor]:
        """Samples (n, *shape) and their classes (n,)."""

    def sample(self, n: int, seed: int = 0, first_index: int = 0,
               labels: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Samples (n, *shape), float64; sample i is the same in every batch.

        Args:
            n: Number of samples.
            seed: Random seed.
            first_index: Index of the first sample.
            labels: Also return the classes (n,), or the components of a mixture without classes.
        """
        x, k = self._draw(n, seed, first_index)
        return (x, k if self.labels is None else self.labels[k]) if labels else x

    def log_prob(self, x: ArrayLike) -> Tensor:
        """log p(x), (B,)."""
        return self._components(x).log_joint.logsumexp(1)

    def responsibilities(self, x: ArrayLike) -> Tensor:
        """r_k = w_k N_k(x)/p(x), (B, K), as the softmax of log w_k N_k."""
        return self._components(x).log_joint.softmax(1)

    def score(self, x: ArrayLike) -> Tensor:
        """∇log p(x) = Σ_k r_k Σ_k⁻¹(μ_k − x)."""
        parts = self._components(x)
        return -self._rotate(parts.log_joint.softmax(1)[..., None] * parts.scaled).reshape(-1, *self.shape)

    def radii(self, x: ArrayLike) -> Tensor:
        """The Mahalanobis distance of each x to its most probable component, (B,); its square is near χ²_d."""
        parts = self._components(x)
        square = (parts.scaled**2 * parts.spread).sum(-1)
        return square.gather(1, parts.log_joint.argmax(1, keepdim=True))[:, 0].sqrt()

    def diffused(self, sde: GaussianSDE, t: Time) -> Mixture:
        """The distribution of x_t at one t: components N(α μ_k, α² Σ_k + σ² I)."""
        alpha, variance = sde.alpha(as_time(t)).double(), sde.variance(as_time(t)).double()
        if alpha.ndim:
            raise InputError(f"got {alpha.numel()} times; expected one (the denoiser takes a time per sample)")
        spectrum = alpha**2 * self._spectrum + variance
        return _from_eigenbasis(self.weights, alpha * self.means, self._basis, spectrum, self.labels)

    def given(self, label: int) -> Mixture:
        """The distribution of one class."""
        if self.labels is None or not 0 <= label < self.classes:
            raise InputError(f"got label {label}; expected a class; this distribution has {self.classes}")
        k = self.labels == label
        return _from_eigenbasis(self.weights[k], self.means[k], self._basis[k], self._spectrum[k], None)

    def denoiser(self, sde: GaussianSDE) -> ExactDenoiser:
        """The exact model E[x_0 | x_t] under a process; `label=` is a condition if the mixture has labels."""
        return ExactDenoiser(self, sde)

    def posterior(self, A: Any, y: Any, noise_std: Any) -> Mixture:
        """The distribution of x_0 given y = A x_0 + n, n ~ N(0, noise_std² I), which is a mixture too.

        w_k' ∝ w_k N(y; A μ_k, S_k), μ_k' = μ_k + G_k (y − A μ_k), Σ_k' = (I − G_k A) Σ_k (I − G_k A)ᵀ + G_k R G_kᵀ with
        S_k = A Σ_k Aᵀ + R and the Kalman gain G_k = Σ_k Aᵀ S_k⁻¹.

        Args:
            A: Matrix (m, d), or (d,) for one observation.
            y: Observations (m,).
            noise_std: Standard deviation of the noise, () or (m,).
        """
        A, y, std = _real(A, "A"), _real(y, "y").reshape(-1), _real(noise_std, "noise_std")
        A = A.reshape(1, -1) if A.ndim < 2 else A.flatten(1)
        if A.shape != (len(y), self.dim) or std.shape not in ((), (1,), y.shape):
            raise InputError(f"got {len(y)} observations, a matrix A of shape {tuple(A.shape)} and noise_std of shape "
                             f"{tuple(std.shape)}; expected A of shape ({len(y)}, {self.dim}), one std or one each")
        R, cov = torch.diag(std.expand(len(y)) ** 2), self.covariances
        observed = torch.distributions.MultivariateNormal(self._flat @ A.mT, A @ cov @ A.mT + R)
        gain = torch.cholesky_solve(A @ cov, observed.scale_tril).mT
        reduction = torch.eye(self.dim, dtype=torch.float64) - gain @ A
        means = self._flat + (gain @ (y - observed.mean)[..., None])[..., 0]
        weights = (self.weights.log() + observed.log_prob(y)).softmax(0)
        cov = reduction @ cov @ reduction.mT + gain @ R @ gain.mT
        return Mixture(weights, means.reshape(self.means.shape), (cov + cov.mT) / 2, labels=self.labels)

    def mmse(self, sde: GaussianSDE, t: Time, n: int = 4096, seed: int = 0) -> MonteCarloEstimate:
        """The minimum mean squared error E‖x_0 − E[x_0|x_t]‖² = E tr Cov(x_0|x_t) at t () or (M,).

        Args:
            sde: the noising process.
            t: times, () or (M,).
            n, seed: number and seed of the samples of x_t to average over; for a Gaussian exact (standard error 0).
        """
        x0, eps = self.sample(n, seed), normal(seed, Purpose.NOISE, 0, 0, n, self.shape, torch.float64)
        model, times = self.denoiser(sde), as_time(t)
        errors = torch.stack([model.error(sde.perturb(x0, s, eps), s) for s in times.reshape(-1)])
        stderr = errors.std(1) / math.sqrt(n)
        return MonteCarloEstimate(errors.mean(1).reshape(times.shape), stderr.reshape(times.shape))

    @classmethod
    def fit(cls, x: ArrayLike, components: int = 1, labels: ArrayLike | None = None, seed: int = 0,
            reg: float = 0.01) -> Mixture:
        """The maximum-likelihood mixture of the rows of x, by expectation maximisation with full covariances.

        Args:
            x: Rows (N, *event).
            components: Number of components per class.
            labels: Class of each row (N,), if any.
            seed: Seed of the initialisation.
            reg: This fraction of the mean variance of x is added to every variance, so that constant pixels are valid.
        """
        x = _real(x, "x")
        labels = None if labels is None else _real(labels, "labels").long()
        if x.ndim == 0 or (labels is not None and labels.shape != x.shape[:1]):
            raise InputError(f"got x of shape {tuple(x.shape)}; expected rows (N, *event), and a label for each if any")
        flat, ridge = x.reshape(len(x), -1), reg * float(x.var(0).mean())
        groups = [flat] if labels is None else [flat[labels == c] for c in range(int(labels.max()) + 1)]
        fits = [_em(rows, components, ridge, seed, c) for c, rows in enumerate(groups)]
        weights = torch.cat([len(rows) * w for rows, (w, _, _) in zip(groups, fits, strict=True)])
        means, covs = torch.cat([m for _, m, _ in fits]), torch.cat([c for _, _, c in fits])
        owners = None if labels is None else torch.arange(len(groups)).repeat_interleave(components)
        return cls(weights, means.reshape(-1, *x.shape[1:]), covs, labels=owners)

    def _draw(self, n: int, seed: int, first_index: int) -> tuple[Tensor, Tensor]:
        """Samples and their components, by elementwise arithmetic only, so that the bits do not depend on the batch."""
        u = uniform(seed, Purpose.DATA, 0, first_index, n)
        k = torch.searchsorted(self.weights.cumsum(0), u, right=True).clamp_max(len(self.weights) - 1)
        z = normal(seed, Purpose.DATA, 1, first_index, n, (self.dim,), torch.float64)
        z, x = z * self._spectrum[k].sqrt(), self._flat[k]
        for j in range(self.dim):
            x = x + self._basis[k, :, j] * z[:, j : j + 1]
        return x.reshape(n, *self.shape), k

    def _components(self, x: ArrayLike, sde: GaussianSDE | None = None, t: Time = 0.0) -> _Components:
        """The components of the distribution of x_t (of x_0 without a process) at x."""
        x = as_rows(x, "x", self.shape).cpu().double().reshape(-1, self.dim)
        alpha, variance = (1.0, 0.0) if sde is None else _coefficients(sde, t, len(x))
        spread = alpha**2 * self._spectrum + variance
        y = (x @ self._wide).reshape(len(x), *self._spectrum.shape) - alpha * self._centres
        spread = spread.reshape(-1, *self._spectrum.shape)
        scaled = y / spread
        log_norm = self.weights.log() - 0.5 * (2 * math.pi * spread).log().sum(-1)
        return _Components(log_norm - 0.5 * (y * scaled).sum(-1), scaled, spread)

    def _rotate(self, c: Tensor) -> Tensor:
        """Σ_k Q_k c_k for coordinates c (B, K, d) in the eigenbases."""
        return c.flatten(1) @ self._wide.mT

    def __repr__(self) -> str:
        classes = f", classes={self.classes}" if self.classes else ""
        return f"{type(self).__name__}({len(self.weights)} components, shape={self.shape}{classes})"


class Gaussian(Mixture):
    """The distribution N(mean, covariance), a mixture of one component.

    Args:
        mean: Mean, of the shape of an event.
        covariance: Matrix (d, d) over the flattened event, or an isotropic variance.
    """

    def __init__(self, mean: Any, covariance: Any) -> None:
        super().__init__([1.0], _real(mean, "mean")[None], _real(covariance, "covariance")[None])

    def __repr__(self) -> str:
        return f"Gaussian(shape={self.shape})"


class ExactDenoiser(Model):
    """E[x_0 | x_t] of a mixture: Σ_k r_k [μ_k + α Σ_k (α² Σ_k + σ² I)⁻¹ (x_t − α μ_k)], computed in float64 on the CPU.

    label: (B,) or a number conditions on the class; None or `classes` means unconditional.
    """

    @property
    def dtype(self) -> torch.dtype:
        """float64."""
        return torch.float64

    def __init__(self, mixture: Mixture, sde: GaussianSDE) -> None:
        super().__init__()
        self.mixture, self.sde, self.shape, self.classes = mixture, sde, mixture.shape, mixture.classes
        variances, basis = torch.linalg.eigh(mixture.covariance)
        self.moments = Moments(mixture.shape, mixture.mean.reshape(-1), variances.clamp_min(0), "pca", basis)
        self.sigma_data = max(1e-6, self.moments.total_std)

    @property
    def condition_names(self) -> tuple[str, ...]:
        """label."""
        return ("label",)

    def denoise(self, x: ArrayLike, t: Time, *, label: Tensor | int | None = None, **cond: Any) -> Tensor:
        """E[x_0 | x_t = x, label], in the dtype of x."""
        if cond:
            raise unknown_condition(next(iter(cond)), self.condition_names)
        x = self.states(x)
        r, parts = self._posterior(x, t, label)
        D = r @ self.mixture._flat + self.mixture._rotate(r[..., None] * self._gain(t, len(r)) * parts.scaled)
        return D.reshape(x.shape).to(x.device, x.dtype)

    def covariance(self, x: Tensor, t: Time, *, label: Tensor | int | None = None) -> Tensor:
        """Cov(x_0 | x_t = x, label) = Σ_k r_k (C_k + (m_k − D)(m_k − D)ᵀ), (B, d, d), float64."""
        r, within, apart = self._parts(x, t, label)
        total = torch.einsum("bk,bki,bkj->bij", r, apart, apart)
        for k, Q in enumerate(self.mixture._basis):
            total = total + r[:, k, None, None] * ((Q * within[:, k, None]) @ Q.mT)
        return total

    def error(self, x: Tensor, t: Time, *, label: Tensor | int | None = None) -> Tensor:
        """E[‖x_0 − D‖² | x_t = x, label] = tr Cov(x_0 | x_t = x, label), (B,), float64."""
        r, within, apart = self._parts(x, t, label)
        return (r * (within + apart**2).sum(-1)).sum(-1)

    def divergence(  # type: ignore[override]
            self, x: Tensor, t: Time, *, label: Tensor | int | None = None) -> Tensor:
        """∇·D = (α/σ²) tr Cov(x_0 | x_t = x, label), (B,), float64."""
        alpha, variance = _coefficients(self.sde, t, len(x))
        return self.error(x, t, label=label) * (alpha / variance).reshape(-1)

    def _parts(self, x: Tensor, t: Time, label: Tensor | int | None) -> tuple[Tensor, Tensor, Tensor]:
        """r_k, the spectra of C_k = Cov(x_0 | x_t, k), and m_k − D with m_k = E[x_0 | x_t, k]."""
        r, parts = self._posterior(x, t, label)
        mixture, variance = self.mixture, _coefficients(self.sde, t, len(r))[1]
        within = variance * mixture._spectrum / parts.spread
        m = mixture._flat + torch.einsum("kij,bkj->bki", mixture._basis, self._gain(t, len(r)) * parts.scaled)
        return r, within, m - torch.einsum("bk,bki->bi", r, m)[:, None]

    def _posterior(self, x: Tensor, t: Time, label: Tensor | int | None) -> tuple[Tensor, _Components]:
        """The responsibilities, restricted to the class `label`, and the components."""
        parts = self.mixture._components(x.cpu(), self.sde, t)
        return (parts.log_joint + self._mask(label)).softmax(1), parts

    def _gain(self, t: Time, n: int) -> Tensor:
        return _coefficients(self.sde, t, n)[0] * self.mixture._spectrum

    def _mask(self, label: Tensor | int | None) -> Tensor:
        """0 for the components of the class `label`, −∞ for the others."""
        if label is None:
            return torch.zeros((), dtype=torch.float64)
        labels = torch.as_tensor(label).cpu().reshape(-1, 1)
        if self.mixture.labels is None or not ((labels >= 0) & (labels <= self.classes)).all():
            raise InputError(f"got label {label}; expected None or a class; this distribution has {self.classes}")
        other = (self.mixture.labels != labels) & (labels != self.classes)
        return torch.zeros(other.shape, dtype=torch.float64).masked_fill(other, -torch.inf)


def _coefficients(sde: GaussianSDE, t: Time, n: int) -> tuple[Tensor, Tensor]:
    """α and σ² as float64 (1 or n, 1, 1)."""
    t = as_time(t).double().cpu()
    if t.ndim and t.shape != (n,):
        raise InputError(f"got times of shape {tuple(t.shape)} for {n} samples; expected () or ({n},)")
    return sde.alpha(t).reshape(-1, 1, 1), sde.variance(t).reshape(-1, 1, 1)


def _from_eigenbasis(weights: Tensor, means: Tensor, basis: Tensor, spectrum: Tensor, labels: Tensor | None) -> Mixture:
    """A mixture from the eigenbases of its covariances."""
    mixture = Mixture.__new__(Mixture)
    mixture._fill(weights, means, basis, spectrum, labels)
    return mixture


def _eigen(cov: Tensor, k: int, d: int) -> tuple[Tensor, Tensor]:
    """Eigenvectors (K, d, d) and eigenvalues (K, d) of covariances given as (K, d, d), (K,) or ()."""
    if cov.ndim == 0 or cov.shape == (k,):
        basis, spectrum = torch.eye(d, dtype=torch.float64).expand(k, d, d), cov.expand(k)[:, None].expand(k, d)
    elif cov.shape == (k, d, d) and torch.allclose(cov, cov.mT, rtol=1e-8, atol=1e-12 * float(cov.abs().max())):
        spectrum, basis = torch.linalg.eigh(cov)
        basis = _fix_signs(basis)
    else:
        raise InputError(f"got covariances {tuple(cov.shape)}; expected ({k}, {d}, {d}), symmetric, ({k},) or ()")
    if (spectrum < -1e-10 * spectrum.abs().max()).any():
        raise InputError(f"got a covariance with the negative eigenvalue {float(spectrum.min()):.3g}; expected none")
    return basis, spectrum.clamp_min(0)


def _fix_signs(basis: Tensor) -> Tensor:
    """Eigenvectors (K, d, d) with signs such that their products with (1, ½, ⅓, ...) are positive: samples then depend
    on the covariances only, not on the signs that a linear algebra library chooses."""
    products = (basis / torch.arange(1, basis.shape[-1] + 1, dtype=basis.dtype)[:, None]).sum(1, keepdim=True)
    return torch.where(products < 0, -basis, basis)


def _em(rows: Tensor, components: int, ridge: float, seed: int, label: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and covariances of one class by expectation maximisation, started from k-means."""
    from sklearn.mixture import GaussianMixture

    if len(rows) < 2 * components:
        raise InputError(f"got {len(rows)} rows of class {label} for {components} components; expected 2 per component")
    state = int(raw_words(seed, Purpose.DATA, 2, label, 1)[0]) >> 32
    try:
        fitted = GaussianMixture(components, reg_covar=ridge, random_state=state, max_iter=300).fit(rows.numpy())
    except ValueError:
        raise InputError(f"got rows of class {label} that vary too little for {components} components; expected rows "
                         "that differ, or fewer components") from None
    return tuple(torch.from_numpy(a) for a in (fitted.weights_, fitted.means_, fitted.covariances_))  # type: ignore[return-value]


def _real(value: Any, name: str) -> Tensor:
    """Numbers as a float64 tensor on the CPU."""
    tensor = as_tensor(value, name).double().cpu()
    if not tensor.isfinite().all():
        raise InputError(f"got NaN or infinite {name}; expected finite numbers")
    return tensor
