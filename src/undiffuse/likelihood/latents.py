"""Latent codes: the noise x_T to which the probability-flow ODE maps data, and the inverse map.

Reference: Song et al. (2021), section 4.3 and appendix D (arXiv:2011.13456); Song, Meng and Ermon (2021), section 4.3
(arXiv:2010.02502) for DDIM; White (2016), arXiv:1609.04468 for spherical interpolation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.likelihood.batching import map_packs, pack_size, select_conditions
from undiffuse.likelihood.coordinates import WhitenedCoordinates, gaussian_model, to_model_units
from undiffuse.likelihood.density_ode import BatchedOde, flow_ode
from undiffuse.model import ReverseModel
from undiffuse.samplers.driver import blocks, conditions_of
from undiffuse.samplers.exponential import ddim_update as ddim_update
from undiffuse.samplers.grid import time_grid
from undiffuse.samplers.method import Node, nodes_of
from undiffuse.sde import as_time, bcast
from undiffuse.tensors import ArrayLike, ConditionValue, as_tensor
from undiffuse.transforms.table_schema import data_rows

_BLOCK = 256
_CONVERGED = 1e-12  # relative change at which the fixed-point iteration of DDIM's inverse stops
_DIVERGED = 1e-4  # relative change after the last iteration above which it has not converged

Denoise = Callable[[Tensor, Node], Tensor]


def encode(model: ReverseModel, x: ArrayLike, method: str = "ode", *, rtol: float = 1e-6, atol: float = 1e-6,
           steps: int = 50, iterations: int = 100, t_end: float | None = None, **cond: ConditionValue) -> Tensor:
    """The latent codes x_T of data x: `sample(model, x_T=code)` and `decode` map them back to x.

    Args:
        model: a model with a denoiser of a Gaussian process.
        x: (B, *event) in data units.
        method: "ode" solves the probability-flow ODE with separate steps for every sample; "ddim" inverts `steps` DDIM
            steps on the grid uniform in log-SNR, exactly if the fixed point of every step converges.
        rtol: relative tolerance per step of "ode".
        atol: absolute tolerance per step of "ode".
        steps: number of steps of "ddim".
        iterations: most fixed-point iterations per step of "ddim"; 0: the usual approximation, with D at the wrong end.
            They converge for small steps: with r = σ̂_s/σ̂ and D' = ∇D(x_s, s), if (r − 1) ‖D'‖ < 1.
        t_end: time of the smallest noise level, at which x is taken to be; None: `model.t_end()`.
        cond: conditions such as label.

    Returns:
        The codes (B, *event) in model units at T, distributed as the prior if x is distributed as the data.

    Raises:
        InputError: for invalid arguments, and for a sample whose ODE could not be solved.

    Reference: Song et al. (2021), section 4.3, arXiv:2011.13456.
    """
    denoiser = gaussian_model(model)
    z, coordinates = to_model_units(denoiser, data_rows(denoiser.schema, x)), WhitenedCoordinates(denoiser, t_end)
    cond = conditions_of(denoiser, cond, len(z), encode)
    if _is_ddim(method):
        nodes = list(reversed(_nodes(coordinates, steps)))
        return _stepwise(coordinates, z * float(_alpha(coordinates)), nodes,
                         partial(_ddim_inverse, iterations=iterations), cond)

    def to_code(z: Tensor, ode: BatchedOde) -> Tensor:
        u = coordinates.whiten(z.to(denoiser.device), coordinates.log_snr_data)
        end = ode.solve(u, coordinates.log_snr_data, coordinates.log_snr_noise, rtol, atol).x
        return code_from_whitened(coordinates, end)

    return _by_blocks(coordinates, z, to_code, cond)


def decode(model: ReverseModel, code: ArrayLike, method: str = "ode", *, rtol: float = 1e-6, atol: float = 1e-6,
           steps: int = 50, t_end: float | None = None, **cond: ConditionValue) -> Tensor:
    """The data of latent codes x_T: the inverse of `encode` with the same options.

    Args:
        model: a model with a denoiser of a Gaussian process.
        code: (B, *event) in model units at T.
        method: "ode" or "ddim".
        rtol: relative tolerance per step of "ode".
        atol: absolute tolerance per step of "ode".
        steps: number of steps of "ddim".
        t_end: time of the smallest noise level; None: `model.t_end()`.
        cond: conditions such as label.

    Returns:
        The data (B, *event) in data units.

    Raises:
        InputError: for invalid arguments, and for a sample whose ODE could not be solved.
    """
    denoiser = gaussian_model(model)
    code = denoiser.states(code, "code")
    cond = conditions_of(denoiser, cond, len(code), decode)
    coordinates = WhitenedCoordinates(denoiser, t_end)
    if _is_ddim(method):
        x = _stepwise(coordinates, code.double(), _nodes(coordinates, steps), _ddim, cond)
        return denoiser.transform.inverse(x / float(_alpha(coordinates)))

    def to_data(x: Tensor, ode: BatchedOde) -> Tensor:
        u = whitened_from_code(coordinates, x.to(denoiser.device))
        end = ode.solve(u, coordinates.log_snr_noise, coordinates.log_snr_data, rtol, atol).x
        return coordinates.unwhiten(end, coordinates.log_snr_data)

    return denoiser.transform.inverse(_by_blocks(coordinates, code, to_data, cond))


def interpolate(model: ReverseModel, x: ArrayLike, y: ArrayLike, n: int = 9, **options: Any) -> Tensor:
    """Data between every pair of x and y, decoded from spherical interpolations of their latent codes.

    Between u and v the arc is [sin((1−w)θ) u + sin(wθ) v]/sin θ, θ the angle between them, in the whitened coordinates,
    in which codes are standard normal.

    Args:
        model: a model with a denoiser of a Gaussian process.
        x: (B, *event) in data units.
        y: (B, *event) in data units.
        n: number of points per pair, both ends included.
        options: options of `encode` and `decode`.

    Returns:
        The interpolations (B, n, *event) in data units.

    Raises:
        InputError: for different shapes of x and y, n < 2, and errors of `encode` and `decode`.

    Reference: White (2016), arXiv:1609.04468.
    """
    x, y = as_tensor(x, "x"), as_tensor(y, "y")
    if x.shape != y.shape or n < 2:
        raise InputError(f"got {tuple(x.shape)} and {tuple(y.shape)} and n={n}; expected two equal shapes and n ≥ 2")
    coordinates = WhitenedCoordinates(gaussian_model(model), options.get("t_end"))
    u, v = (whitened_from_code(coordinates, encode(model, end, **options)) for end in (x, y))
    arcs = slerp(u, v, torch.linspace(0, 1, n, dtype=torch.float64).to(u))
    points = decode(model, code_from_whitened(coordinates, arcs.flatten(0, 1)).cpu(), **options)
    return points.reshape(len(x), n, *points.shape[1:])


def slerp(u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """The arcs from u to v (B, k) at w (n,), (B, n, k); a straight line where both have the same direction.

    Args:
        u: starts (B, k).
        v: ends (B, k).
        w: fractions (n,) of the arc, 0 at u and 1 at v.
    """
    cosine = torch.nn.functional.cosine_similarity(u, v).clamp(-1, 1)[:, None]
    angle = torch.acos(cosine).clamp_min(1e-6)
    weight_u, weight_v = torch.sin((1 - w) * angle) / torch.sin(angle), torch.sin(w * angle) / torch.sin(angle)
    return weight_u[..., None] * u[:, None] + weight_v[..., None] * v[:, None]


def code_from_whitened(coordinates: WhitenedCoordinates, u: Tensor) -> Tensor:
    """x_T = α μ + U √(α² s² + σ²) u."""
    alpha, std = _prior_scale(coordinates)
    return coordinates.moments.unrotate(alpha * coordinates.moments.rotated_mean(u) + std * u)


def whitened_from_code(coordinates: WhitenedCoordinates, x: Tensor) -> Tensor:
    """u of x_T."""
    alpha, std = _prior_scale(coordinates)
    y = coordinates.moments.rotate(x.to(coordinates.model.device, coordinates.state_dtype))
    return (y - alpha * coordinates.moments.rotated_mean(y)) / std


def _prior_scale(coordinates: WhitenedCoordinates) -> tuple[float, Tensor]:
    """α(T) and √(α² s² + σ²) there."""
    sde = coordinates.model.sde
    alpha, variance = float(sde.alpha(as_time(sde.T))), float(sde.variance(as_time(sde.T)))
    return alpha, (alpha**2 * coordinates.spectrum + variance).sqrt()


def _by_blocks(coordinates: WhitenedCoordinates, z: Tensor, solve: Callable[[Tensor, BatchedOde], Tensor],
               cond: dict[str, Any]) -> Tensor:
    """`solve` applied to all rows, block by block; raises InputError for a sample whose ODE could not be solved."""
    parts = []
    with torch.no_grad():
        for _, size, keep, rows, block_cond in blocks(len(z), 0, _BLOCK, z, cond):
            assert rows is not None
            parts.append(solve(rows, flow_ode(coordinates, size, keep, block_cond))[:keep].cpu())
    out = torch.cat(parts) if parts else z
    if not bool(out.isfinite().all()):
        raise InputError("got codes that are not finite; use a larger tolerance, or a model that is trained further")
    return out


def _is_ddim(method: str) -> bool:
    """Whether the method is "ddim"; raises InputError for an unknown one."""
    if method not in ("ode", "ddim"):
        raise InputError(f"got method={method!r}; expected ode or ddim")
    return method == "ddim"


def _alpha(coordinates: WhitenedCoordinates) -> Tensor:
    """α at the smallest noise level."""
    return coordinates.model.sde.alpha(coordinates.model.sde.time_of(coordinates.log_snr_data))


def _nodes(coordinates: WhitenedCoordinates, steps: int) -> list[Node]:
    """The nodes of DDIM's grid, from T to the smallest noise level."""
    model = coordinates.model
    t_end = float(model.sde.time_of(coordinates.log_snr_data))
    return nodes_of(model.sde, time_grid(model.sde, steps, "log_snr", None, t_end, model.sigma_data))


def _stepwise(coordinates: WhitenedCoordinates, x: Tensor, nodes: list[Node], step: Callable[..., Tensor],
              cond: dict[str, Any]) -> Tensor:
    """x moved from node to node by step(denoise, x, node, next node), in packs."""
    model, dtype = coordinates.model, coordinates.model_dtype

    def run(rows: Tensor) -> tuple[Tensor, ...]:
        state, pack_cond = x[rows].to(model.device), select_conditions(cond, rows)

        def denoise(x: Tensor, node: Node) -> Tensor:
            return model.denoise(x.to(dtype), node.t, **pack_cond).to(x)

        for node, s in pairwise(nodes):
            state = step(denoise, state, node, s)
        return (state,)

    with torch.no_grad():
        return map_packs(run, torch.arange(len(x)), pack_size(x[0].numel()))[0].cpu() if len(x) else x


def _ddim(denoise: Denoise, x: Tensor, node: Node, s: Node) -> Tensor:
    """One DDIM step from node to s."""
    return ddim_update(x, denoise(x, node), node, s)


def _ddim_inverse(denoise: Denoise, x: Tensor, node: Node, s: Node, iterations: int) -> Tensor:
    """The state x_s that DDIM maps to x at node: the fixed point of ddim_update(x, D(x_s, s), node, s).

    With constant D the update is its own inverse, so only the point at which D is evaluated is unknown. Raises
    InputError if the iteration does not converge.
    """
    x_s, pending = ddim_update(x, denoise(x, node), node, s), x.new_ones(len(x), dtype=torch.bool)
    change = x.new_zeros(len(x))
    for _ in range(iterations):
        update = torch.where(bcast(pending.double(), x) > 0, ddim_update(x, denoise(x_s, s), node, s), x_s)
        change = (update - x_s).flatten(1).norm(dim=1) / update.flatten(1).norm(dim=1).clamp_min(1e-300)
        pending = ((update - x_s).abs() > _CONVERGED * update.abs()).flatten(1).any(1)
        x_s = update
        if not bool(pending.any()):
            break
    if failed := int((~(change <= _DIVERGED)).sum()):
        raise InputError(f"got DDIM steps that are too large to invert: {failed} of {len(x)} samples did not converge "
                         f"in {iterations} iterations; use more steps or method='ode'")
    return x_s
