"""The log-likelihood of data in data units, with its error budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.likelihood import dequantization
from undiffuse.likelihood.coordinates import WhitenedCoordinates, gaussian_model, to_model_units
from undiffuse.likelihood.density_ode import TraceEstimator, solve_density_ode
from undiffuse.likelihood.table_rows import RowProposal
from undiffuse.model import Model, ReverseModel
from undiffuse.samplers.driver import blocks, conditions_of
from undiffuse.tensors import ArrayLike, ConditionValue
from undiffuse.transforms.base import Table
from undiffuse.transforms.table_schema import data_rows

_EXACT_UP_TO = 64  # entries per event up to which divergence="auto" is exact
_DRAWS_MISSING = 8  # samples per row with missing values
_TENSORS = ("log_prob", "stderr", "solver", "truncation", "truncation_error", "prior", "log_det", "nfe")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, repr=False)
class Likelihood:
    """log p(x) in nats of data units, with its error budget; every tensor is (B,), float64.

    Args:
        log_prob: log p(x); for discrete data a lower bound of the log-probability of the level. A row of a table has a
            density in its columns of continuous numbers times a probability of its other values; missing values are
            integrated out. −∞ for a row with an impossible value.
        stderr: standard error of the random probes and, for several dequantization samples, of those.
        solver: error of log p by the local errors that the embedded method estimates.
        truncation: correction for noise levels below the model's smallest one.
        truncation_error: estimated error of that correction.
        prior: estimated error because the prior at T differs from the distribution of x_T.
        log_det: log-determinant of the transform to model units.
        nfe: model evaluations per sample.
        dim: number of entries of an event.
        discrete: whether log_prob is a probability of grey levels instead of a density.
        bound: whether log_prob is a lower bound: of grey levels, and of tables with discrete columns or missing values.
    """

    log_prob: Tensor
    stderr: Tensor
    solver: Tensor
    truncation: Tensor
    truncation_error: Tensor
    prior: Tensor
    log_det: Tensor
    nfe: Tensor
    dim: int
    discrete: bool = False
    bound: bool = False

    @property
    def bits_per_dim(self) -> Tensor:
        """−log₂ p/d, with d the number of entries of an event of the model."""
        return -self.log_prob / (self.dim * math.log(2))

    @property
    def error(self) -> Tensor:
        """The total error in nats: the root of the sum of squares of the four errors."""
        return torch.stack([self.stderr, self.solver, self.truncation_error, self.prior]).square().sum(0).sqrt()

    def __repr__(self) -> str:
        mean = float(self.log_prob.mean()) if len(self.log_prob) else math.nan
        return f"Likelihood({len(self.log_prob)} rows, mean={mean:.4g}, dim={self.dim}, discrete={self.discrete})"

    def select(self, rows: Tensor) -> Likelihood:
        """The likelihood of some rows, by number or mask."""
        tensors: dict[str, Any] = {name: value[rows] for name, value in self.budget().items()}
        return replace(self, **tensors)

    def budget(self) -> dict[str, Tensor]:
        """Every tensor by name, for a table."""
        return {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}


@dataclass(frozen=True)
class _Settings:
    """Settings of a density computation: see `log_likelihood`."""

    divergence: str
    probes: int
    rtol: float
    atol: float
    seed: int
    truncation: bool
    draws: int
    block: int

    def exact(self, dim: int) -> bool:
        """Whether the divergence is the whole trace."""
        return self.divergence == "exact" or (self.divergence == "auto" and dim <= _EXACT_UP_TO)

    def check(self) -> None:
        """Raise InputError for a value outside of its domain."""
        if self.divergence not in ("auto", "exact", "hutchinson"):
            raise InputError(f"got divergence={self.divergence!r}; expected auto, exact or hutchinson")
        if self.probes < 1 or self.draws < 1 or self.block < 1:
            raise InputError(f"got probes={self.probes}, draws={self.draws}, block={self.block}; expected at least 1 "
                             "of each")


def log_likelihood(model: ReverseModel, x: ArrayLike, divergence: str = "auto", probes: int = 16, rtol: float = 1e-5,
                   atol: float = 1e-5, seed: int = 0, *, first_index: int = 0, t_end: float | None = None,
                   truncation: bool = True, dequantise: str = "auto", draws: int | None = None, block: int = 256,
                   progress: Progress | None = None, **cond: ConditionValue) -> Likelihood:
    """log p(x) of every row of x under the model's probability-flow ODE.

    log p_0(x_0) = log p_T(x_T) + ∫₀ᵀ ∇·v dt along dx/dt = v, solved in log-SNR and in the whitened coordinates of the
    data, with separate step sizes for every sample.

    Args:
        model: a model with a denoiser of a Gaussian process.
        x: (B, *event) in data units.
        divergence: "exact" (one Jacobian product per entry of an event, or a closed form where the model has one),
            "hutchinson" (`probes` random products, whose spread gives the standard error), "auto": exact up to 64
            entries.
        probes: number of random products per evaluation for "hutchinson".
        rtol: relative tolerance per step for states of unit variance, √d times as large for log p.
        atol: absolute tolerance per step, likewise.
        seed: seed of the probes and of dequantization.
        first_index: random address of the first row; row i has the same bytes alone and in a batch.
        t_end: time of the smallest noise level; None: `model.t_end()`, or a quarter of a bin for "normal".
        truncation: whether to correct for the noise levels below it.
        dequantise: for grey levels "normal" (auto) or "uniform", which bound the log-probability of a level from below;
            "none": the density of levels taken as real numbers. "auto" for tables with discrete columns or missing
            values bounds the log-probability of what is observed.
        draws: dequantization samples per row; more make the bound tighter. None: 1, and 8 for rows with missing values.
        block: rows that advance together; the last bits of a result depend on it.
        progress: called as progress(done, total) after every block.
        cond: conditions such as label.

    Returns:
        A `Likelihood` in nats of data units.

    Raises:
        InputError: for invalid arguments, and for a sample whose ODE could not be solved.

    Reference: Chen et al. (2018), arXiv:1806.07366; Song et al. (2021), eq. 39, arXiv:2011.13456; Grathwohl et al.
    (2019), arXiv:1810.01367 for fixed probes.
    """
    denoiser, x = gaussian_model(model), data_rows(model.schema, x)
    kind = dequantization.resolve_kind(denoiser, dequantise, x)
    z = to_model_units(denoiser, x, missing=kind == "table")
    draws = (_DRAWS_MISSING if bool(x.isnan().any()) else 1) if draws is None else draws
    settings = _Settings(divergence, probes, rtol, atol, seed, truncation, draws, block)
    settings.check()
    cond = conditions_of(denoiser, cond, len(z), log_likelihood)
    log_det = _log_det(denoiser, kind, x)
    end = dequantization.end_time(denoiser, kind) if t_end is None else t_end
    coordinates, parts = WhitenedCoordinates(denoiser, end), []
    start = x.double() if kind == "table" else z
    for i, (first, _, keep, rows, block_cond) in enumerate(blocks(len(z), first_index, block, start, cond)):
        assert rows is not None
        parts.append(_block(coordinates, rows, keep, first, settings, kind, block_cond))
        if progress is not None:
            progress(min(len(z), (i + 1) * block), len(z))
    total = _concatenate(parts, coordinates.dim)
    _check_finite(total.log_prob, first_index)
    return replace(total, log_prob=total.log_prob + log_det, log_det=log_det, discrete=kind in ("uniform", "normal"),
                   bound=kind != "none")


def _log_det(model: Model, kind: str, x: Tensor) -> Tensor:
    """The log-determinant of the transform, of a table over its values with a density; 0 for grey levels."""
    if kind == "table":
        assert isinstance(model.transform, Table)
        return model.transform.log_measure(x).double().cpu()
    return model.transform.log_det(x).double().cpu() if kind == "none" else torch.zeros(len(x)).double()


def _block(coordinates: WhitenedCoordinates, rows: Tensor, keep: int, first: int, settings: _Settings, kind: str,
           cond: dict[str, Any]) -> Likelihood:
    """The density of one block, or for levels and missing values the bound from all samples."""
    if kind == "none":
        return _density(coordinates, rows, settings, first, keep, cond)
    sigma = float(torch.exp(-coordinates.log_snr_data))
    proposal = RowProposal(coordinates.model, sigma) if kind == "table" else None
    half = 0.0 if proposal else dequantization.half_bin_width(coordinates.model)
    density = proposal.has_density(rows) if proposal else None
    settings = replace(settings, truncation=settings.truncation and kind != "normal")
    terms = []
    for k in range(settings.draws):
        sample = proposal.sample(rows, settings.seed, k, first) if proposal else \
            dequantization.dequantize(kind, rows, half, sigma, settings.seed, k, first)
        term = _density(coordinates, sample.z, settings, first, keep, cond, density)
        terms.append(replace(term, log_prob=term.log_prob - sample.log_q[:keep].cpu()))
    return _importance_bound(terms)


def _density(coordinates: WhitenedCoordinates, z: Tensor, settings: _Settings, first_index: int, keep: int,
             cond: dict[str, Any], density: Tensor | None = None) -> Likelihood:
    """log p(z) of the first `keep` rows of z (B, *event) in model units, z = x_0; log_det is 0."""
    estimator = TraceEstimator(coordinates, z, settings.exact(coordinates.dim), settings.probes, settings.seed,
                               first_index, keep, cond, density)
    end = solve_density_ode(estimator, settings.rtol, settings.atol)
    zero = estimator.z.new_zeros(len(z))
    truncation, truncation_error = estimator.truncation() if settings.truncation else (zero[:, None], zero)
    log_normalizer = coordinates.log_prior(end.u) - coordinates.log_volume(coordinates.log_snr_data)
    estimates = log_normalizer[:, None] + end.b + truncation
    tail = end.dbdlam.mean(1) - (end.u * end.dudlam).sum(1)
    prior = tail.abs() / (1 if coordinates.model.moments is None else 3)
    columns = (estimates.mean(1), estimator.stderr(estimates), end.error, truncation.mean(1), truncation_error, prior,
               zero, end.nfe + (2 if settings.truncation else 0))
    return _likelihood((column[:keep].cpu() for column in columns), coordinates.dim)


def _importance_bound(terms: list[Likelihood]) -> Likelihood:
    """The bound from several samples: the mean weight; errors weighted as the samples are, evaluations summed."""
    columns = {name: torch.stack([getattr(term, name) for term in terms]) for name in _TENSORS}
    bound, spread = dequantization.log_mean_weight(columns["log_prob"])
    weights = columns["log_prob"].softmax(0)
    stderr = (weights * columns["stderr"]).square().sum(0).sqrt()
    averaged = ("solver", "truncation", "truncation_error", "prior")
    means: dict[str, Any] = {name: (weights * columns[name]).sum(0) for name in averaged}
    return replace(terms[0], log_prob=bound, stderr=stderr if len(terms) == 1 else torch.hypot(stderr, spread), **means,
                   nfe=columns["nfe"].sum(0))


def _concatenate(parts: Sequence[Likelihood], dim: int) -> Likelihood:
    """The blocks as one; without any an empty likelihood."""
    empty = torch.zeros(0, dtype=torch.float64)
    return _likelihood((torch.cat([empty, *(getattr(part, name) for part in parts)]) for name in _TENSORS), dim)


def _likelihood(columns: Iterable[Tensor], dim: int) -> Likelihood:
    """From the tensors in the order of the fields."""
    tensors: dict[str, Any] = dict(zip(_TENSORS, columns, strict=True))
    return Likelihood(**tensors, dim=dim)


def _check_finite(log_prob: Tensor, first_index: int) -> None:
    """Raise InputError for samples whose ODE could not be solved."""
    bad = ~log_prob.isfinite()
    if bool(bad.any()):
        rows = (first_index + bad.nonzero().flatten()[:5]).tolist()
        raise InputError(f"got no finite likelihood for {int(bad.sum())} samples (index {rows}); use a larger "
                         "tolerance or t_end, or a model that is trained further")
