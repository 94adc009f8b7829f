"""Encodings: the noise at T that the probability-flow ODE leads to from given data, and the way back.

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
from undiffuse.grid import time_grid
from undiffuse.likelihood.flow import Flow
from undiffuse.likelihood.frame import Frame, gaussian_model, rows_of
from undiffuse.likelihood.rows import pack_size, packed, pick
from undiffuse.model import Model, ReverseModel
from undiffuse.sampling import blocks
from undiffuse.sde import as_time, bcast
from undiffuse.steps.start import held
from undiffuse.steps.state import Node, nodes_of

_BLOCK = 256
_CLOSE = 1e-12  # where the iteration of DDIM's inverse has converged


def encode(model: ReverseModel, x: Tensor, method: str = "ode", *, rtol: float = 1e-6, atol: float = 1e-6,
           steps: int = 50, iterations: int = 100, t_end: float | None = None, **cond: Any) -> Tensor:
    """The code x_T (B, *event) of data x (B, *event): `sample(model, x_T=code)` and `decode` lead back from it.

    x is in data units, the code in model units at T, where it is a draw of the prior if x is one of the data.
    method: "ode" solves the flow, each sample with its own steps, to rtol and atol; "ddim" inverts DDIM's `steps` steps
    on the grid even in log-SNR, exactly if the fixed point of each (at most `iterations`, 0 for the usual guess, which
    takes D at the wrong end) converges. t_end: the time of the smallest noise level; x is taken to be there.
    """
    chosen, z = gaussian_model(model), rows_of(gaussian_model(model), x)
    frame = Frame(chosen, t_end)
    if _is_ddim(method):
        return _stepwise(chosen, z * float(_alpha(frame)), list(reversed(_nodes(frame, steps))),
                         partial(_ddim_back, iterations=iterations), cond)

    def walk(z: Tensor, flow: Flow) -> Tensor:
        z = z.to(chosen.device)
        return prior_state(frame, flow.solve(frame.enter(z, frame.start), frame.start, frame.end, rtol, atol).x)

    return _by_blocks(frame, z, walk, cond)


def decode(model: ReverseModel, code: Tensor, method: str = "ode", *, rtol: float = 1e-6, atol: float = 1e-6,
           steps: int = 50, t_end: float | None = None, **cond: Any) -> Tensor:
    """The data x (B, *event), in data units, that a code x_T leads to: the inverse of `encode` with the same options.
    """
    chosen = gaussian_model(model)
    if code.ndim == 0 or tuple(code.shape[1:]) != tuple(chosen.shape):
        raise InputError(f"got codes of shape {tuple(code.shape)}; expected (B, {', '.join(map(str, chosen.shape))})")
    frame = Frame(chosen, t_end)
    if _is_ddim(method):
        x = _stepwise(chosen, code.double(), _nodes(frame, steps), _ddim, cond)
        return chosen.transform.inverse(x / float(_alpha(frame)))

    def walk(x: Tensor, flow: Flow) -> Tensor:
        u = prior_noise(frame, x.to(chosen.device))
        return frame.leave(flow.solve(u, frame.end, frame.start, rtol, atol).x, frame.start)

    return chosen.transform.inverse(_by_blocks(frame, code, walk, cond))


def interpolate(model: ReverseModel, x: Tensor, y: Tensor, n: int = 9, **options: Any) -> Tensor:
    """n data between every pair of x and y (B, *event), ends included, (B, n, *event): decoded from arcs of codes.

    Between u and v the arc is [sin((1−w)θ) u + sin(wθ) v]/sin θ, θ the angle between them, in the frame in which codes
    are standard normal. options: of `encode` and `decode`.
    """
    if x.shape != y.shape or n < 2:
        raise InputError(f"got {tuple(x.shape)} and {tuple(y.shape)} and n={n}; expected two equal shapes and n ≥ 2")
    frame = Frame(gaussian_model(model), options.get("t_end"))
    u, v = (prior_noise(frame, encode(model, side, **options)) for side in (x, y))
    arcs = slerp(u, v, torch.linspace(0, 1, n, dtype=torch.float64).to(u))
    between = decode(model, prior_state(frame, arcs.flatten(0, 1)).cpu(), **options)
    return between.reshape(len(x), n, *between.shape[1:])


def slerp(u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """The arcs from u to v (B, k) at w (n,), (B, n, k); a straight line where the two point the same way."""
    cosine = torch.nn.functional.cosine_similarity(u, v).clamp(-1, 1)[:, None]
    angle = torch.acos(cosine).clamp_min(1e-6)
    near, far = torch.sin((1 - w) * angle) / torch.sin(angle), torch.sin(w * angle) / torch.sin(angle)
    return near[..., None] * u[:, None] + far[..., None] * v[:, None]


def prior_state(frame: Frame, u: Tensor) -> Tensor:
    """x_T = α μ + U √(α² s² + σ²) u."""
    alpha, spread = _last(frame)
    return frame.moments.back(alpha * frame.moments.rotated_mean(u) + spread * u)


def prior_noise(frame: Frame, x: Tensor) -> Tensor:
    """u of x_T."""
    alpha, spread = _last(frame)
    y = frame.moments.rotate(x.to(frame.model.device, frame.real))
    return (y - alpha * frame.moments.rotated_mean(y)) / spread


def _last(frame: Frame) -> tuple[float, Tensor]:
    """α(T) and √(α² s² + σ²) there."""
    sde = frame.model.sde
    alpha, variance = float(sde.alpha(as_time(sde.T))), float(sde.variance(as_time(sde.T)))
    return alpha, (alpha**2 * frame.spectrum + variance).sqrt()


def _by_blocks(frame: Frame, z: Tensor, walk: Callable[[Tensor, Flow], Tensor], cond: dict[str, Any]) -> Tensor:
    """`walk` applied to all rows, block by block; raises InputError for a sample whose ODE could not be solved."""
    pieces = []
    with torch.no_grad():
        for _, size, keep, rows, here in blocks(len(z), 0, _BLOCK, z, cond):
            assert rows is not None
            pieces.append(walk(rows, Flow(frame, size, keep, here))[:keep].cpu())
    out = torch.cat(pieces) if pieces else z
    if not bool(out.isfinite().all()):
        raise InputError("got codes that are not finite; use a larger tolerance, or a model that is trained further")
    return out


def _is_ddim(method: str) -> bool:
    if method not in ("ode", "ddim"):
        raise InputError(f"got method={method!r}; expected ode or ddim")
    return method == "ddim"


def _alpha(frame: Frame) -> Tensor:
    return frame.model.sde.alpha(frame.model.sde.time_of(frame.start))


def _nodes(frame: Frame, steps: int) -> list[Node]:
    model = frame.model
    t_end = float(model.sde.time_of(frame.start))
    return nodes_of(model.sde, time_grid(model.sde, steps, "log_snr", None, t_end, model.sigma_data))


def _stepwise(model: Model, x: Tensor, nodes: list[Node], step: Callable[..., Tensor], cond: dict[str, Any]) -> Tensor:
    """x led from node to node by step(denoise, x, node, next node), in packs."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), model.dtype)

    def lead(rows: Tensor) -> tuple[Tensor, ...]:
        here, given = x[rows].to(model.device), pick(cond, rows)

        def denoise(x: Tensor, node: Node) -> Tensor:
            return model.denoise(x.to(dtype), node.t, **given).to(x)

        for node, s in pairwise(nodes):
            here = step(denoise, here, node, s)
        return (here,)

    with torch.no_grad():
        return packed(lead, torch.arange(len(x)), pack_size(x[0].numel()))[0].cpu() if len(x) else x


def _ddim(denoise: Callable[[Tensor, Node], Tensor], x: Tensor, node: Node, s: Node) -> Tensor:
    return held(x, denoise(x, node), node, s)


def _ddim_back(denoise: Callable[[Tensor, Node], Tensor], x: Tensor, node: Node, s: Node, iterations: int) -> Tensor:
    """The state at s from which DDIM leads to x at node: the fixed point of held(x, D(x_s, s), node, s).

    The flow with D held is its own inverse, so only the place where D is taken has to be found.
    """
    guess, open_ = held(x, denoise(x, node), node, s), x.new_ones(len(x), dtype=torch.bool)
    for _ in range(iterations):
        better = torch.where(bcast(open_.double(), x) > 0, held(x, denoise(guess, s), node, s), guess)
        open_ = ((better - guess).abs() > _CLOSE * better.abs()).flatten(1).any(1)
        guess = better
        if not bool(open_.any()):
            break
    return guess
