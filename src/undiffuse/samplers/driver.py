"""`sample`: resolve the sampler, run it block by block, return `Samples`.

Sample i of a seed has the same bytes for every n, first_index and batch: its noise has the address (seed, step, i), and
the model always sees blocks of one size (the last one is padded), because a matrix product of another size rounds
differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from undiffuse.errors import InputError, did_you_mean
from undiffuse.model import Model, ReverseModel
from undiffuse.random import BrownianPath, Purpose, normal, normals
from undiffuse.samplers.method import (
    STAGES,
    CountingModel,
    Method,
    Node,
    NoiseSource,
    SamplerContext,
    State,
    Step,
    nodes_of,
)
from undiffuse.samplers.samples import DecodedStates, Samples
from undiffuse.samplers.select import SamplerPlan, SamplerRequest, resolve_method
from undiffuse.tensors import ArrayLike, ConditionValue, as_tensor
from undiffuse.transforms.codec import Codec

NORMALS_PER_CALL = 1 << 16
"""The number of normals generated in one call where a step needs fewer."""
_HINTS = {
    "eta": "it is an option of some methods: give options={'eta': ...}",
    "guidance_scale": "give the guided model: ud.classifier_free(model, 2.0)",
    "num_inference_steps": "give steps=",
    "device": "sampling runs on the model's device: model.to(...)",
}
"""Arguments of other libraries."""
Callback = Callable[[int, float, Tensor], None]
Progress = Callable[[int, int], None]


def sample(model: ReverseModel, n: int | None = None, method: str | Method = "auto", steps: int | None = None, *,
           grid: str | Tensor | None = None, seed: int = 0, first_index: int = 0, trajectory: bool = False,
           x_T: ArrayLike | None = None, t_start: float | None = None, t_end: float | None = None,
           x0: ArrayLike | None = None, strength: float = 1.0, denoise_last: bool = True,
           callback: Callback | None = None, block: int | None = None,
           noise: str = "step", options: dict[str, Any] | None = None, progress: Progress | None = None,
           **cond: ConditionValue) -> Samples:
    """Draw samples first_index ... first_index + n − 1 of a model by running its reverse SDE or ODE.

    Args:
        model: the model to sample.
        n: number of samples; None: 1, or the number of rows of x_T.
        method: "auto" is the tuned sampler if the model has one for this request, else the best default for `steps`
            evaluations; "tuned" the tuned sampler, else an error; "sde" the best stochastic default; or a name in
            `samplers.METHODS`, or a `Method`.
        steps: number of intervals of the grid, ignored by adaptive methods; None: 20, for particles 100.
        grid: name of a time grid, or a tensor of decreasing times; None: the method's default.
        seed: seed of the prior and of all noise.
        first_index: index of the first sample.
        trajectory: keep the states at all times.
        x_T: states (n, *event) at t_start in model units; None: samples of the prior.
        t_start: time of the start; None: `model.t_start()`, which is T, or the largest noise level of the training.
        t_end: time of the end; None: `model.t_end()`.
        x0: data (n, *event) to start from: they are noised to where the last part of the grid begins.
        strength: this part as a fraction of the steps; 1: all.
        denoise_last: end with x = D(x, t_end), one more evaluation.
        callback: called as callback(step, t, x) for every block after every step.
        block: rows per model call, on which the last bits depend; None: the model's.
        noise: "step" addresses noise by step, "path" by time, so that a finer grid refines the same Brownian path.
        options: options of the method, such as {"eta": 0.5}.
        progress: called as progress(done, total) after every step of every block.
        cond: conditions such as label: one value for all, or one per sample.

    Returns:
        `Samples` on the CPU, in data units.

    Raises:
        InputError: for a request that does not fit the model or the method, and for samples that are not finite.
    """
    if not isinstance(model, ReverseModel):
        raise InputError(f"got model={type(model).__name__}; expected a model, such as ud.Denoiser or ud.load(run)")
    if noise not in ("step", "path"):
        raise InputError(f"got noise={noise!r}; expected step or path")
    start = model.states(x_T, "x_T") if x_T is not None else None if x0 is None else states_of(model, x0)
    n = _count(n, start)
    if isinstance(model, Model) and cond and model.moments_given(cond) is not model.moments:
        model, cond = model.given(**cond), {}
    conditions = conditions_of(model, cond, n, sample)
    end_times = (t_start, t_end)
    from_noise = x0 is None and (x_T is None or t_start is None)
    plan = resolve_method(model, SamplerRequest(method, steps, grid, end_times, conditions, from_noise))
    denoise_last = denoise_last and isinstance(model, Model)
    times = plan.times(model, end_times, denoise_last)
    if x0 is not None and start is not None:
        times = _last_part(model, times, strength, denoise_last)
        start = _noised(model, start, float(times[0]), seed, first_index)
    group = plan.method.samples_per_run
    ahead, size = first_index % group if n else 0, -(-(block or model.block) // group) * group
    sizes = block_sizes(n + ahead, size, model.splits_blocks and block is None and group == 1)
    on_step = _merge_callbacks(callback, progress, len(sizes) * (len(times) - 1))
    sampler = _BlockSampler.build(model, plan.method, times, start, options or {}, seed=seed, trajectory=trajectory,
                                  denoise_last=denoise_last, on_step=on_step,
                                  path_noise=noise == "path" or plan.method.path_noise)
    rows, conditions = _pad_front(start, ahead), {k: _pad_front(value, ahead) for k, value in conditions.items()}
    pieces = [sampler(*piece) for piece in blocks(n + ahead, first_index - ahead, sizes, rows, conditions)]
    origin = "x_T" if plan.start == "prior" and start is not None else plan.start
    return _collect(pieces, ahead, sampler, plan, times, origin)


class _Block(NamedTuple):
    """The result of one block: its states in model units, and its counters."""

    states: list[Tensor]
    nfe: int
    nfe_per_sample: Tensor | None
    log_evidence: Tensor | None


@dataclass(frozen=True)
class _BlockSampler:
    """A sampler built for one request, applied block by block."""

    model: ReverseModel
    nodes: list[Node]
    step: Step
    seed: int
    trajectory: bool
    denoise_last: bool
    on_step: Callback | None
    path_noise: bool

    @classmethod
    def build(cls, model: ReverseModel, method: Method, times: Tensor, x_T: Tensor | None, options: dict[str, Any],
              **settings: Any) -> _BlockSampler:
        """The step is built here, once; raises InputError where the method does not fit the grid or the options."""
        nodes = nodes_of(model.process(), times)
        if method.gaussian and nodes[-1].sigma == 0:
            raise InputError(f"got t_end={float(times[-1]):g}, where there is no noise and log-SNR is infinite; choose "
                             "t_end > 0 (denoise_last=True ends at the data)")
        template = torch.empty(0, *model.shape, dtype=model.dtype if x_T is None else x_T.dtype, device=model.device)
        return cls(model, nodes, method.step(SamplerContext(model, nodes, template), options), **settings)

    @property
    def stamps(self) -> list[float]:
        """The times of the states of a trajectory."""
        return [float(node.t) for node in self.nodes] + [0.0] * self.denoise_last

    @torch.no_grad()
    def __call__(self, first: int, size: int, keep: int, x: Tensor | None, cond: dict[str, Any]) -> _Block:
        """Sample one block; of its states all with `trajectory`, else the last."""
        model = CountingModel(self.model, cond)
        prior = self.model.prior_sample(size, self.seed, first, float(self.nodes[0].t)) if x is None else x
        state = State(prior.to(self.model.device), self.nodes[0], 0, model, self._noise(first, size))
        states = [state.x]
        for node in self.nodes[1:]:
            state = self.step(state, node)
            if self.on_step is not None:
                self.on_step(state.index, float(state.node.t), state.x)
            states = [*states, state.x] if self.trajectory else [state.x]
        if self.denoise_last:
            states = [*states, model.denoise(state.x, state.node)][0 if self.trajectory else 1:]
        self._check_finite(states[-1], first, keep)
        per_sample, evidence = model.nfe_per_sample, model.log_evidence
        return _Block([x[:keep].cpu() for x in states], model.nfe,
                      None if per_sample is None else (per_sample + model.nfe)[:keep].cpu(),
                      None if evidence is None else evidence[:keep].cpu())

    def _noise(self, first: int, size: int) -> NoiseSource:
        """The normals of a block: one stage of a step at a time; for small blocks, many steps at once."""
        model, end_times = self.model, (float(self.nodes[-1].t), float(self.nodes[0].t))
        device, dtype = model.device, model.dtype
        path = BrownianPath(self.seed, first, size, model.shape, dtype, *end_times) if self.path_noise else None
        ahead: dict[int, Tensor] = {}
        per_call = max(1, NORMALS_PER_CALL // max(1, size * math.prod(model.shape)))

        def fetch(steps: list[int]) -> Tensor:
            return normals(self.seed, Purpose.STEP, steps, first, size, model.shape, dtype).to(device)

        def draw(index: int, stage: int, t: Tensor, s: Tensor) -> Tensor:
            if path is not None and stage < STAGES and bool((s < t).any()):
                return path.increment(t, s).to(device)
            if stage:
                return fetch([(index << 34) + stage])[0]
            if index not in ahead:
                ahead.clear()
                steps = range(index, min(index + per_call, max(index + 1, len(self.nodes) - 1)))
                ahead.update(zip(steps, fetch([k << 34 for k in steps]), strict=True))
            return ahead[index]

        return draw

    def _check_finite(self, x: Tensor, first: int, keep: int) -> None:
        bad = ~x[:keep].flatten(1).isfinite().all(1)
        if bool(bad.any()):
            rows = (first + bad.nonzero().flatten()[:5]).tolist()
            raise InputError(f"got non-finite samples (index {rows}) from {len(self.nodes) - 1} steps; use more steps, "
                             "another method, or a model that is trained further")


def _collect(pieces: list[_Block], ahead: int, sampler: _BlockSampler, plan: SamplerPlan, times: Tensor,
             start: str) -> Samples:
    """The samples of all blocks, without the first `ahead` rows."""
    states = [torch.cat(parts)[ahead:] for parts in zip(*(piece.states for piece in pieces), strict=True)]
    model = sampler.model
    z = states[-1] if states else torch.empty(0, *model.shape)
    decoded = DecodedStates(model.transform.inverse, sampler.stamps, states)
    eager = [] if isinstance(model.transform, Codec) else list(decoded) if sampler.trajectory and states else []
    per_sample, evidence = ([value for piece in pieces if (value := getattr(piece, name)) is not None]
                            for name in ("nfe_per_sample", "log_evidence"))
    counts = torch.cat(per_sample)[ahead:] if per_sample else None
    nfe = pieces[-1].nfe if pieces else 0
    return Samples(
        x=eager[-1][1] if eager else model.transform.inverse(z), z=z,
        nfe=nfe if counts is None else int(counts.median()), t=times,
        method=plan.name, grid=plan.grid_name, start=start, start_level=plan.start_level, tuned_for=plan.tuned_for,
        trajectory=eager or (decoded if sampler.trajectory and states else []),
        nfe_per_sample=counts, log_evidence=torch.cat(evidence)[ahead:] if evidence else None)


def states_of(model: ReverseModel, x: ArrayLike) -> Tensor:
    """Data x (B, *event) in model units; raises InputError for another shape."""
    z = model.transform.forward(as_tensor(x, "x0").to(model.dtype))
    return model.states(z, "x0")


def _last_part(model: ReverseModel, times: Tensor, strength: float, denoise_last: bool) -> Tensor:
    """The last part of a grid, a fraction `strength` of its steps."""
    steps = len(times) - 1 + denoise_last
    keep = math.floor(strength * steps + 1e-9) if 0 < strength <= 1 else 0
    if keep < 1 or not isinstance(model, Model):
        raise InputError(f"got x0 with strength={strength} for {steps} steps of a {type(model).__name__}; expected a "
                         "denoiser, and a strength up to 1 that leaves at least one step")
    return times[len(times) - keep - (not denoise_last):]


def _noised(model: ReverseModel, z: Tensor, t: float, seed: int, first_index: int) -> Tensor:
    """z noised to t, by the noise of each sample's prior."""
    assert isinstance(model, Model)
    eps = normal(seed, Purpose.INIT, 0, first_index, len(z), model.shape, z.dtype).to(z.device)
    return model.sde.perturb(z, t, eps)


def _merge_callbacks(callback: Callback | None, progress: Progress | None, total: int) -> Callback | None:
    """A callback that also reports progress."""
    if progress is None:
        return callback
    done = count(1)

    def both(step: int, t: float, x: Tensor) -> None:
        progress(next(done), total)
        if callback is not None:
            callback(step, t, x)

    return both


def _pad_front(value: Any, ahead: int) -> Any:
    """A tensor of one row per sample with `ahead` copies of the first row in front; other values unchanged."""
    if not isinstance(value, Tensor) or value.ndim == 0 or not ahead:
        return value
    return torch.cat([value[:1].expand(ahead, *value.shape[1:]), value])


def _count(n: int | None, x_T: Tensor | None) -> int:
    """The number of samples."""
    rows = 1 if x_T is None else len(x_T)
    if n is None:
        return rows
    if not isinstance(n, int | np.integer) or n < 0:
        raise InputError(f"got n={n!r}; expected an integer number of samples ≥ 0")
    if x_T is not None and n != rows:
        raise InputError(f"got x_T of shape {tuple(x_T.shape)} for n={n}; expected one row per sample, or n left out")
    return int(n)


def conditions_of(model: ReverseModel, cond: Mapping[str, Any], n: int, caller: Callable[..., Any] | None = None
                  ) -> dict[str, Any]:
    """The conditions of a call as `denoise` takes them.

    Args:
        model: the model.
        cond: values by name: one for all samples, or one per sample.
        n: number of samples.
        caller: the function that was called; the error message suggests its arguments.

    Raises:
        InputError: for a condition that the model does not have, and for another number of values than n.
    """
    names, encoded = model.condition_names, {c.name for c in model.conditions}
    for name in cond:
        if names is not None and name not in names:
            raise _unknown_keyword(name, names, caller)
    values = model.encode_conditions({k: v if k in encoded else _value(k, v) for k, v in cond.items()}, n)
    for name, value in values.items():
        if isinstance(value, Tensor) and value.ndim > 0 and len(value) != n:
            raise InputError(f"got {len(value)} values of {name} for {n} samples; expected one each, or one for all")
    _check_labels(values.get("label"), model.classes)
    return values


def _unknown_keyword(name: str, names: Sequence[str], caller: Callable[..., Any] | None) -> InputError:
    """The error for a keyword that neither the call nor the model has."""
    if name in _HINTS:
        return InputError(f"got {name}=, which is not a condition of this model; {_HINTS[name]}")
    arguments = signature(caller).parameters if caller else ()
    near = did_you_mean(name, [*names, *(word for word in arguments if word not in ("model", "cond"))])
    return InputError(f"got {name}=, which is neither an argument nor a condition of this model (it has "
                      f"{', '.join(names) or 'none'}){near}")


def _value(name: str, value: Any) -> Any:
    """A single value unchanged, several values as a tensor."""
    if name == "label":
        return _as_labels(value)
    return as_tensor(value, name) if isinstance(value, list | tuple) or hasattr(value, "__array__") else value


def _as_labels(label: Any) -> Any:
    """A single label unchanged, several as a tensor of integers; InputError for text and fractions."""
    if label is None or isinstance(label, int):
        return label
    try:
        numbers = as_tensor(label, "label")
        whole = bool((numbers == numbers.round()).all())
    except InputError:
        whole = False
    if not whole:
        raise InputError(f"got label={str(label)[:60]}; expected the number of a class, or a list or tensor of numbers "
                         "with one entry per sample")
    return numbers.long()


def _check_labels(label: Any, classes: int) -> None:
    if label is None:
        return
    if classes == 0:
        raise InputError("got a label for a model that was trained without classes; leave it out")
    values = torch.as_tensor(label)
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) <= classes:
        raise InputError(f"got labels from {int(values.min())} to {int(values.max())}; expected 0 to {classes - 1}")


def block_sizes(n: int, block: int, split: bool = False) -> list[int]:
    """The sizes of the blocks of n samples: all equal, or with `split` the rest in smaller powers of two.

    Args:
        n: number of samples.
        block: samples of a block.
        split: the rest is split; sample i then has the same bytes for equal sizes only.
    """
    if not split:
        return [block] * -(-n // block)
    sizes = [block] * (n // block)
    while (rest := n - sum(sizes)) > 0:
        sizes.append(1 << (rest.bit_length() - 1))
    return sizes


def blocks(n: int, first_index: int, block: int | Sequence[int], x_T: Tensor | None, cond: dict[str, Any]
            ) -> Iterator[tuple[int, int, int, Tensor | None, dict[str, Any]]]:
    """(first index, block size, rows to keep, rows of x_T, conditions) of each block, the last one padded.

    Args:
        n: number of samples.
        first_index: index of the first sample.
        block: samples of a block, or the sizes of all blocks.
        x_T: the states at the start, (n, *event); None: draws of the prior.
        cond: conditions by name; tensors (n, ...) are split, other values are the same for all blocks.
    """
    start = 0
    for size in block_sizes(n, block) if isinstance(block, int) else block:
        rows = torch.arange(start, start + size).clamp_max(n - 1)
        values = {k: v[rows] if isinstance(v, Tensor) and v.ndim > 0 else v for k, v in cond.items()}
        yield first_index + start, size, min(size, n - start), None if x_T is None else x_T[rows], values
        start += size
