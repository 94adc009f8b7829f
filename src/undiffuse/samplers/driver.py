"""The driver of every sampler: fixed blocks, seeds by sample index, trajectories, progress.

Sample i of a seed is the same bytes whatever n, first_index or the batch: its noise has the address (seed, step, i),
and the model always sees blocks of one size (the last one is padded), because a matrix product of another size rounds
differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.errors import InputError, did_you_mean
from undiffuse.model import Model, ReverseModel
from undiffuse.random import BrownianPath, Purpose, normals
from undiffuse.samplers.default import TABLES, default_sampler
from undiffuse.samplers.grid import time_grid
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
from undiffuse.samplers.registry import METHODS
from undiffuse.samplers.tuned import find_tuned, require_tuned
from undiffuse.sde import GaussianSDE, as_time
from undiffuse.tensors import ArrayLike, ConditionValue, as_tensor

AHEAD = 1 << 16  # normals that are drawn in one call where a step needs fewer
_HINTS = {
    "eta": "it is an option of some methods: give options={'eta': ...}",
    "guidance_scale": "give the guided model: ud.classifier_free(model, 2.0)",
    "num_inference_steps": "give steps=",
    "device": "the samples are drawn where the model is: model.to(...)",
}
"""What other libraries call things."""
Callback = Callable[[int, float, Tensor], None]
Progress = Callable[[int, int], None]


@dataclass(repr=False)
class Samples:
    """What `sample` returns: x (n, *event) in data units, the model calls per sample, the grid, the path if kept.

    `trajectory` is a list of (t, x) from t_start to the end, x in data units, its last entry being `x`. Of a method
    that chooses its own steps `nfe` is the median and `nfe_each` (n,) the calls of every sample. `log_evidence` (n,) is
    the estimate of log p(y) of the run of particles that a sample is from, where the method makes one.
    """

    x: Tensor
    nfe: int
    t: Tensor
    method: str
    trajectory: list[tuple[float, Tensor]] = field(default_factory=list)
    nfe_each: Tensor | None = None
    log_evidence: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.x.numpy(), dtype, copy=bool(copy) or None)

    def __repr__(self) -> str:
        return f"Samples(x={tuple(self.x.shape)}, nfe={self.nfe}, method={self.method!r})"


def sample(model: ReverseModel, n: int | None = None, method: str | Method = "auto", steps: int | None = None, *,
           grid: str | Tensor | None = None, seed: int = 0, first_index: int = 0, trajectory: bool = False,
           x_T: ArrayLike | None = None, t_start: float | None = None, t_end: float | None = None,
           denoise_last: bool = True, callback: Callback | None = None, block: int | None = None,
           noise: str = "step", options: dict[str, Any] | None = None, progress: Progress | None = None,
           **cond: ConditionValue) -> Samples:
    """Draw samples first_index ... first_index + n − 1 of a model by running its reverse SDE or ODE.

    n: how many (default 1, or the number of rows of x_T). method: a name in `steps.METHODS`, a `Method`, auto: what
    `samplers.default` has for `steps` evaluations (`Samples.method` says which), or what was fitted to the model if it
    has been tuned, tuned: that or an error, or sde: as the untuned auto, with noise.
    options: of the method, such as {"eta": 0.5}. steps: intervals of the grid, of no meaning to adaptive methods; 20 by
    default, 100 for particles.
    x_T: given states at t_start in model units instead of draws of the prior.
    t_start, t_end: default T and the model's own end. denoise_last: end with x = D(x, t_end), one more call.
    callback(step, t, x): called for every block after every step; progress(done, of) too, with the steps of all blocks.
    block: rows per model call.
    noise: "step" has an address for every step, "path" one for every time, so that a finer grid refines the same path.
    cond: conditions such as label, one for all or a tensor with one entry a sample; labels also as a list of numbers,
    those that the model knows by name as lists of numbers or words.

    Raises InputError for a request that makes no sense, and for a sample that is not finite, naming the step.
    """
    if not isinstance(model, ReverseModel):
        raise InputError(f"got model={type(model).__name__}; expected a model, such as ud.Denoiser or ud.load(run)")
    start = None if x_T is None else model.states(x_T, "x_T")
    n = _count(n, start)
    given = conditions_of(model, cond, n, signature(sample).parameters)
    fitted = _tuned(model, method, steps, grid, (t_start, t_end), given)
    plain = grid is not None or bool(given)
    if fitted is not None:
        name, chosen = fitted
    elif model.own is None and isinstance(method, str) and method in TABLES:
        name, chosen = default_sampler(model, 20 if steps is None else steps, (t_start, t_end), plain, method)
    else:
        name, chosen = _choose(model, method)
    steps = chosen.steps if steps is None else steps
    times = _times(model, chosen, steps, chosen.grid if grid is None else grid, t_start, t_end)
    if noise not in ("step", "path"):
        raise InputError(f"got noise={noise!r}; expected step or path")
    ahead = first_index % chosen.group if n else 0
    size = -(-(block or model.block) // chosen.group) * chosen.group
    heard = _merge_callbacks(callback, progress, -(-(n + ahead) // size) * (len(times) - 1))
    run = _Run(model, chosen, nodes_of(model.process(), times), seed, denoise_last, trajectory, heard,
               noise == "path" or chosen.path, options or {})
    run.check()
    start, given = _pad_front(start, ahead), {name: _pad_front(value, ahead) for name, value in given.items()}
    pieces = [run(*piece) for piece in blocks(n + ahead, first_index - ahead, size, start, given)]
    paths = [torch.cat([p[k] for p in pieces])[ahead:] for k in range(len(pieces[0]))] if pieces else []
    stamps = [*times.tolist(), 0.0] if denoise_last and run.denoises else times.tolist()
    kept = list(zip(stamps, paths, strict=True)) if trajectory else []
    x = paths[-1] if paths else model.transform.inverse(torch.empty(0, *model.shape))
    each = torch.cat(run.each)[ahead:] if run.each else None
    evidence = torch.cat(run.evidence)[ahead:] if run.evidence else None
    return Samples(x, run.calls if each is None else int(each.median()), times, name, kept, each, evidence)


@dataclass
class _Run:
    """One request, carried out block by block."""

    model: ReverseModel
    method: Method
    nodes: list[Node]
    seed: int
    denoise_last: bool
    trajectory: bool
    callback: Callback | None
    path: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    calls: int = 0
    each: list[Tensor] = field(default_factory=list)
    evidence: list[Tensor] = field(default_factory=list)
    step: Step | None = None

    @property
    def denoises(self) -> bool:
        """Whether the model has a denoiser for the last evaluation."""
        return isinstance(self.model, Model)

    def check(self) -> None:
        """Raise InputError where the method does not fit the request, before anything is computed."""
        last = self.nodes[-1]
        if self.method.gaussian and last.sigma == 0:
            raise InputError(f"got t_end={float(last.t):g}, where there is no noise and log-SNR is infinite; choose "
                             "t_end > 0 (denoise_last=True ends at the data)")
        self.method.step(SamplerContext(self.model, self.nodes, torch.empty(0, *self.model.shape)), self.options)

    @torch.no_grad()
    def __call__(self, first: int, size: int, keep: int, x: Tensor | None, cond: dict[str, Any]) -> list[Tensor]:
        """The states of one block in data units: all of them with `trajectory`, else the last."""
        model = CountingModel(self.model, cond)
        prior = self.model.prior_sample(size, self.seed, first, float(self.nodes[0].t)) if x is None else x
        start = prior.to(self.model.device)
        step = self.step = self.step or self.method.step(SamplerContext(self.model, self.nodes, start), self.options)
        state = State(start, self.nodes[0], 0, model, self._noise(first, size))
        path = [state.x]
        for node in self.nodes[1:]:
            state = step(state, node)
            self._report(state)
            path = [*path, state.x] if self.trajectory else [state.x]
        if self.denoise_last and self.denoises:
            path = [*path, model.denoise(state.x, state.node)][0 if self.trajectory else 1:]
        self._check_finite(path[-1], first, keep)
        self.calls = model.calls
        if model.each is not None:
            self.each.append((model.each + model.calls)[:keep].cpu())
        if model.evidence is not None:
            self.evidence.append(model.evidence[:keep].cpu())
        return [self.model.transform.inverse(p[:keep].cpu()) for p in path]

    def _noise(self, first: int, size: int) -> NoiseSource:
        """The normals of a block: one stage of a step at a time, and of small blocks those of many steps at once."""
        model, ends = self.model, (float(self.nodes[-1].t), float(self.nodes[0].t))
        device, dtype = model.device, model.dtype
        motion = BrownianPath(self.seed, first, size, model.shape, dtype, *ends) if self.path else None
        ahead: dict[int, Tensor] = {}
        many = max(1, AHEAD // max(1, size * math.prod(model.shape)))

        def fetch(steps: list[int]) -> Tensor:
            return normals(self.seed, Purpose.STEP, steps, first, size, model.shape, dtype).to(device)

        def draw(index: int, stage: int, t: Tensor, s: Tensor) -> Tensor:
            if motion is not None and stage < STAGES and bool((s < t).any()):
                return motion.increment(t, s).to(device)
            if stage:
                return fetch([(index << 34) + stage])[0]
            if index not in ahead:
                ahead.clear()
                steps = range(index, min(index + many, max(index + 1, len(self.nodes) - 1)))
                ahead.update(zip(steps, fetch([k << 34 for k in steps]), strict=True))
            return ahead[index]

        return draw

    def _report(self, state: State) -> None:
        if self.callback is not None:
            self.callback(state.index, float(state.node.t), state.x)

    def _check_finite(self, x: Tensor, first: int, keep: int) -> None:
        bad = ~x[:keep].flatten(1).isfinite().all(1)
        if bool(bad.any()):
            rows = (first + bad.nonzero().flatten()[:5]).tolist()
            raise InputError(f"got non-finite samples (index {rows}) from {len(self.nodes) - 1} steps; use more steps, "
                             "another method, or a model that is trained further")


def _merge_callbacks(callback: Callback | None, progress: Progress | None, of: int) -> Callback | None:
    """The callback, with the progress told as well."""
    if progress is None:
        return callback
    done = count(1)

    def both(step: int, t: float, x: Tensor) -> None:
        progress(next(done), of)
        if callback is not None:
            callback(step, t, x)

    return both


def _tuned(model: ReverseModel, method: str | Method, steps: int | None, grid: str | Tensor | None,
           ends: tuple[float | None, float | None], cond: dict[str, Any]) -> tuple[str, Method] | None:
    """The sampler fitted to the model, where it is asked for, or there is one and nothing else is asked for."""
    steps = 20 if steps is None else steps
    if method == "tuned":
        return require_tuned(model, steps, ends, cond)
    return find_tuned(model, steps, ends, cond) if method == "auto" and grid is None else None


def _choose(model: ReverseModel, asked: str | Method) -> tuple[str, Method]:
    """The method asked for, if it can run this process."""
    gaussian = isinstance(model.process(), GaussianSDE)
    if model.own is not None:
        if asked != "auto":
            raise InputError(f"got method={asked!r} for a model that is sampled in a way of its own; leave method out")
        return "own", model.own
    if isinstance(asked, Method):
        return "custom", asked
    if asked not in METHODS:
        raise InputError(f"got method={str(asked)[:60]!r}, which is no sampler; expected auto, sde, tuned "
                         f"or a name in ud.samplers.METHODS{did_you_mean(str(asked), METHODS)}")
    method = METHODS[asked]
    if method.gaussian and not gaussian:
        usable = ", ".join(k for k, m in METHODS.items() if not m.gaussian)
        raise InputError(f"got method={asked!r} for a process that has no closed-form kernel; expected one of {usable}")
    return asked, method


def _times(model: ReverseModel, method: Method, steps: int, grid: str | Tensor, t_start: float | None,
           t_end: float | None) -> Tensor:
    if method.adaptive:
        steps = 1 + (isinstance(model, Model) and float(model.sde.alpha(as_time(t_start or model.sde.T))) == 0)
    if isinstance(model, Model):
        end, steps = model.t_end() if t_end is None else t_end, steps + (method.free and steps > 0)
        return time_grid(model.sde, steps, grid, t_start, end, model.sigma_data, method.first)
    named = "time" if isinstance(grid, str) and grid not in ("time", "time_quadratic") else grid
    return time_grid(model.process(), steps, named, t_start, 0.0 if t_end is None else t_end)


def _pad_front(value: Any, ahead: int) -> Any:
    """A tensor of one row a sample, with the first row put `ahead` times in front."""
    if not isinstance(value, Tensor) or value.ndim == 0 or not ahead:
        return value
    return torch.cat([value[:1].expand(ahead, *value.shape[1:]), value])


def _count(n: int | None, x_T: Tensor | None) -> int:
    """The number of samples."""
    rows = 1 if x_T is None else len(x_T)
    if n is None:
        return rows
    if not isinstance(n, int | np.integer) or n < 0:
        raise InputError(f"got n={n!r}; expected a whole number of samples ≥ 0")
    if x_T is not None and n != rows:
        raise InputError(f"got x_T of shape {tuple(x_T.shape)} for n={n}; expected one row a sample, or n left out")
    return int(n)


def conditions_of(model: ReverseModel, cond: Mapping[str, Any], n: int, others: Iterable[str] = ()) -> dict[str, Any]:
    """The conditions of a call for n samples as the model takes them; see `sample`.

    Raises InputError for one that the model does not know (`others` are further keywords that may have been meant), and
    for another number of values than n.
    """
    known = model.condition_names
    for name in cond:
        if known is not None and name not in known:
            raise _unknown(name, known, others)
    given = {name: value if name in _named(model) else _value(name, value) for name, value in cond.items()}
    given = model.told(given, n)
    for name, value in given.items():
        if isinstance(value, Tensor) and value.ndim > 0 and len(value) != n:
            raise InputError(f"got {len(value)} values of {name} for {n} samples; expected one each, or one for all")
    _check_labels(given.get("label"), getattr(model, "classes", 0))
    return given


def _named(model: ReverseModel) -> set[str]:
    """The conditions that a model reads itself."""
    return {c.name for c in model.conditions}


def _unknown(name: str, known: Sequence[str], others: Iterable[str]) -> InputError:
    """The error for a keyword that neither the call nor the model has."""
    if name in _HINTS:
        return InputError(f"got {name}=, which is no condition of this model; {_HINTS[name]}")
    near = did_you_mean(name, [*known, *(word for word in others if word not in ("model", "cond"))])
    return InputError(f"got {name}=, which is neither an argument nor a condition of this model (it has "
                      f"{', '.join(known) or 'none'}){near}")


def _value(name: str, value: Any) -> Any:
    """A value as it is, several as a tensor of numbers."""
    if name == "label":
        return _as_labels(value)
    return as_tensor(value, name) if isinstance(value, list | tuple) or hasattr(value, "__array__") else value


def _as_labels(label: Any) -> Any:
    """A label as it is, several as a tensor of whole numbers; InputError for words and fractions."""
    if label is None or isinstance(label, int):
        return label
    refusal = InputError(f"got label={str(label)[:60]}; expected the number of a class, or a list or tensor of numbers "
                         "with one entry a sample")
    try:
        numbers = as_tensor(label, "label")
    except InputError:
        raise refusal from None
    if not bool((numbers == numbers.round()).all()):
        raise refusal
    return numbers.long()


def _check_labels(label: Any, classes: int) -> None:
    if label is None:
        return
    if classes == 0:
        raise InputError("got a label for a model that was trained without classes; leave it out")
    values = torch.as_tensor(label)
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) <= classes:
        raise InputError(f"got label {int(values.min())} to {int(values.max())}; expected 0 to {classes - 1}")


def blocks(n: int, first_index: int, block: int, x_T: Tensor | None, cond: dict[str, Any]
            ) -> Iterator[tuple[int, int, int, Tensor | None, dict[str, Any]]]:
    """(first index, block size, rows to keep, rows of x_T, conditions) of each block, the last one padded."""
    for start in range(0, n, block):
        keep = min(block, n - start)
        rows = torch.arange(start, start + block).clamp_max(n - 1)
        here = {k: v[rows] if isinstance(v, Tensor) and v.ndim > 0 else v for k, v in cond.items()}
        yield first_index + start, block, keep, None if x_T is None else x_T[rows], here
