"""The log-likelihood of data in the user's own units, with its error budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.likelihood import discrete
from undiffuse.likelihood.density import Density, Settings, density
from undiffuse.likelihood.frame import Frame, gaussian_model, rows_of
from undiffuse.likelihood.result import Likelihood
from undiffuse.model import ReverseModel
from undiffuse.sampling import blocks

Progress = Callable[[int, int], None]


def log_likelihood(model: ReverseModel, x: Tensor, divergence: str = "auto", probes: int = 16, rtol: float = 1e-5,
                   atol: float = 1e-5, seed: int = 0, *, first_index: int = 0, t_end: float | None = None,
                   truncation: bool = True, dequantise: str = "auto", draws: int = 1, block: int = 256,
                   progress: Progress | None = None, **cond: Any) -> Likelihood:
    """log p(x) of every row of x (B, *event) in data units under the model's probability-flow ODE.

    log p_0(x_0) = log p_T(x_T) + ∫₀ᵀ ∇·v dt along dx/dt = v, with a sample's own steps, in log-SNR and in the frame of
    the data's moments.

    divergence: "exact" (one product with the Jacobian per entry of an event, or a closed form where the model has one),
    "hutchinson" (`probes` random ones, whose spread gives the standard error), auto: exact up to 64 entries.
    rtol, atol: the tolerance of a step for states of unit variance; √d times as much for log p.
    seed, first_index: of the probes and draws; row i has index first_index + i and the same bytes alone and in a batch.
    t_end: the time of the smallest noise level, by default the model's own, for "normal" that of a quarter of a bin.
    truncation: correct for what is below.
    dequantise: for grey levels "normal" (auto) or "uniform", which make the result a lower bound of the log-probability
    of a level, tighter with more `draws`; "none" gives the density of levels taken as real numbers.
    block: rows that advance together; the last bits depend on it. progress(done, of): called after every block.
    cond: conditions such as label.

    Raises InputError for a request that makes no sense and for a sample whose ODE could not be solved.

    Reference: Chen et al. (2018), arXiv:1806.07366; Song et al. (2021), eq. 39, arXiv:2011.13456; Grathwohl et al.
    (2019), arXiv:1810.01367 for fixed probes.
    """
    chosen, z = gaussian_model(model), rows_of(gaussian_model(model), x)
    kind, settings = discrete.kind_of(chosen, dequantise, x), Settings(divergence, probes, rtol, atol, seed, truncation)
    _check(settings, draws, block, x, cond)
    log_det = chosen.transform.log_det(x).double().cpu() if kind == "none" else torch.zeros(len(x)).double()
    frame, parts = Frame(chosen, discrete.smallest(chosen, kind) if t_end is None else t_end), []
    for done, (first, _, keep, rows, here) in enumerate(blocks(len(z), first_index, block, z, cond)):
        assert rows is not None
        parts.append(_block(frame, rows, keep, first, settings, kind, draws, here))
        if progress is not None:
            progress(min(len(z), (done + 1) * block), len(z))
    found = Density(*(torch.cat(column) for column in zip(*parts, strict=True))) if parts else _nothing()
    _check_finite(found, first_index)
    return Likelihood(found.log_prob + log_det, *found[1:6], log_det, found.nfe, frame.dim, kind != "none")


def _block(frame: Frame, z: Tensor, keep: int, first: int, settings: Settings, kind: str, draws: int,
           cond: dict[str, Any]) -> Density:
    """The density of one block, or of levels the bound from all draws."""
    if kind == "none":
        return density(frame, z, settings, first, keep, cond)
    half, sigma = discrete.half_bin(frame.model), float(torch.exp(-frame.start))
    settings = Settings(**{**vars(settings), "truncation": settings.truncation and kind == "uniform"})
    tries = []
    for k in range(draws):
        at = discrete.draw(kind, z, half, sigma, settings.seed, k, first)
        one = density(frame, at.z, settings, first, keep, cond)
        tries.append(one._replace(log_prob=one.log_prob - at.log_q[:keep].cpu()))
    return _joined(tries)


def _joined(tries: list[Density]) -> Density:
    """The bound from several draws: the mean weight; errors weighted as the draws are, evaluations in sum."""
    columns = Density(*(torch.stack(column) for column in zip(*tries, strict=True)))
    bound, spread = discrete.mean_weight(columns.log_prob)
    share = columns.log_prob.softmax(0)
    stderr = (share * columns.stderr).square().sum(0).sqrt()
    stderr = stderr if len(tries) == 1 else torch.hypot(stderr, spread)
    solver, gap, doubt, prior = ((share * column).sum(0) for column in columns[2:6])
    return Density(bound, stderr, solver, gap, doubt, prior, columns.nfe.sum(0))


def _nothing() -> Density:
    return Density(*(torch.zeros(0, dtype=torch.float64) for _ in Density._fields))


def _check(settings: Settings, draws: int, block: int, x: Tensor, cond: dict[str, Any]) -> None:
    if settings.divergence not in ("auto", "exact", "hutchinson"):
        raise InputError(f"got divergence={settings.divergence!r}; expected auto, exact or hutchinson")
    if settings.probes < 1 or draws < 1 or block < 1:
        raise InputError(f"got probes={settings.probes}, draws={draws}, block={block}; expected at least 1 of each")
    for name, value in cond.items():
        if isinstance(value, Tensor) and value.ndim > 0 and len(value) != len(x):
            raise InputError(f"got {len(value)} values of {name} for {len(x)} samples; expected one each, or one for "
                             "all")


def _check_finite(found: Density, first_index: int) -> None:
    bad = ~found.log_prob.isfinite()
    if bool(bad.any()):
        rows = (first_index + bad.nonzero().flatten()[:5]).tolist()
        raise InputError(f"got no finite likelihood for {int(bad.sum())} samples (index {rows}); use a larger "
                         "tolerance or t_end, or a model that is trained further")
