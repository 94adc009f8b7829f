"""Our samplers as a diffusers scheduler: every method of the library inside an unchanged pipeline.

The loop belongs to the pipeline, which evaluates its network (with guidance) at the point that it was handed last. Each
step of ours is asked for its next point (`samplers.asking`), so that `timesteps` has one entry per evaluation.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from undiffuse.errors import InputError, did_you_mean
from undiffuse.interop.diffusers_package import as_diffusers_class, require_diffusers
from undiffuse.interop.schedules import Schedule, times_of
from undiffuse.model import Denoiser, Model
from undiffuse.moments import Moments
from undiffuse.random import Purpose, normal
from undiffuse.samplers.asking import StepwiseRun
from undiffuse.samplers.default import TABLES, default_sampler
from undiffuse.samplers.grid import time_grid
from undiffuse.samplers.method import Method, Node, NoiseSource, SamplerContext, nodes_of
from undiffuse.samplers.registry import ALL, DISTILLED
from undiffuse.samplers.tuned import TunedSampler, tuning_of
from undiffuse.sde import bcast
from undiffuse.transforms.base import GreyLevels

THEIRS = "diffusers"
"""The grid of the pipeline's own scheduler."""


def scheduler(source: Any, method: str | Model = "auto", grid: str | None = None, *, seed: int | None = None,
              options: Mapping[str, Any] | None = None) -> Any:
    """A scheduler for a diffusers pipeline by a method of this library: `pipe.scheduler = ud.scheduler(pipe)`.

    Args:
        source: a pipeline, or its scheduler.
        method: name of a sampler that is not adaptive; "auto" is the default for the number of steps without noise,
            "sde" the one with noise; or a tuned model.
        grid: name of a time grid, or "diffusers", the times of the pipeline's scheduler; None: that one for flows, else
            the method's.
        seed: seed of the noise of the steps; None: by the generators of the call, one per sample or one for all, and
            without one by the initial states.
        options: options of the method.

    Raises:
        InputError: for an unknown method, a model that is not tuned, and a scheduler that is not supported.
    """
    name, config = configuration(getattr(source, "scheduler", source))
    tuning = _tuning_config(method) if isinstance(method, Model) else None
    return scheduler_class()(source=name, source_config=config, grid=grid, seed=seed, options=dict(options or {}),
                             method="tuned" if isinstance(method, Model) else method, tuning=tuning,
                             pixels=_side_of(source))


def _side_of(pipe: Any) -> int | None:
    """The side of the states of a pipeline of pixels; None for latents, and for a scheduler without its pipeline."""
    side = getattr(getattr(getattr(pipe, "unet", None), "config", None), "sample_size", None)
    if side is None or getattr(pipe, "vae", None) is not None:
        return None
    return side if isinstance(side, int) else min(side)


def configuration(old: Any) -> tuple[str, dict[str, Any]]:
    """The class and the configuration of a scheduler of diffusers; of one of ours, those of the one it replaced."""
    if isinstance(old, Solver):
        return str(old.config.source), dict(old.config.source_config)
    config = {k: v for k, v in dict(old.config).items() if not k.startswith("_")}
    return type(old).__name__, {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in config.items()}


@cache
def scheduler_class() -> type[Any]:
    """`Solver` as a scheduler class of diffusers, which is imported here."""
    mixin = require_diffusers("a scheduler for diffusers").SchedulerMixin
    return as_diffusers_class("UndiffuseScheduler", Solver, mixin)


def __getattr__(name: str) -> Any:
    """`UndiffuseScheduler`, made when a saved pipeline asks for it, and the class by which diffusers loads it."""
    if name == "UndiffuseScheduler":
        return scheduler_class()
    if name == "SchedulerMixin":
        return scheduler_class().__mro__[2]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Solver:
    """The scheduler: times of all evaluations, and the run behind them."""

    order = 1
    config: Any
    _compatibles: ClassVar[list[str]] = []

    def __init__(self, source: str = "DDIMScheduler", source_config: dict[str, Any] | None = None,
                 method: str = "auto", grid: str | None = None, seed: int | None = None,
                 options: dict[str, Any] | None = None, tuning: dict[str, Any] | None = None,
                 pixels: int | None = None) -> None:
        if method not in (*ALL, *DISTILLED, *TABLES, "tuned"):
            raise InputError(f"got method={method!r}; expected auto, sde or a name in samplers.ALL"
                             f"{did_you_mean(method, ALL)}")
        if method in ALL and ALL[method].adaptive:
            raise InputError(f"got the adaptive method {method}, whose evaluations are not known in advance; choose "
                             "another one")
        config = source_config or {}
        schedule = Schedule.from_config(source, config)
        self.process, self.reading = schedule.process, schedule.reading
        self.model = Denoiser(nn.Identity(), self.process, self.reading, shape=(1, pixels or 1, pixels or 1),
                              sigma_data=0.5 if pixels else self.reading.sigma_data,
                              transform=GreyLevels(256) if pixels else None)
        self.model.source, self.model.scheduler = source, (source, config)
        self.register_to_config(**{k: v for k, v in config.items() if k not in _ARGUMENTS})  # pipelines read these
        self.times, self.first = torch.linspace(self.process.T, self.model.t_end(), 2, dtype=torch.float64), [0, 1]
        self.timesteps, self.num_inference_steps = self._timesteps(self.times), 0
        self._begin, self._call, self._run = 0, 0, None

    register_to_config: Any
    _run: StepwiseRun | None

    @property
    def init_noise_sigma(self) -> float:
        """The standard deviation of the initial states: 1 for data of unit variance, σ(T) where α = 1."""
        return 1.0 if float(self.process.alpha(self.process.T)) < 0.5 else float(self.process.sigma(self.process.T))

    @property
    def begin_index(self) -> int:
        """The index of the first evaluation."""
        return self._begin

    @property
    def sigmas(self) -> Tensor:
        """σ of every evaluation."""
        return self.process.sigma(self.times).float()

    def __len__(self) -> int:
        return int(self.config.get("num_train_timesteps") or 1000)

    def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None, timesteps: Any = None,
                      sigmas: Any = None, mu: float | None = None, **_: Any) -> None:
        """Choose the nodes and list the times of all evaluations.

        Args:
            num_inference_steps: number of nodes, which is the number of evaluations of a one-evaluation method.
            device: device of `timesteps`.
            timesteps: times as the network takes them, instead of a grid.
            sigmas: noise levels of a flow, shifted as its own scheduler would.
            mu: shift of a flow by the size of its images.
        """
        n = int(num_inference_steps or len(timesteps if timesteps is not None else sigmas))
        self.chosen, self.denoise_last = self._method(n)
        self.nodes = nodes_of(self.process, self._grid(n, timesteps, sigmas, mu))
        self.times, self.first = self._evaluations()
        self.timesteps, self.num_inference_steps = self._timesteps(self.times).to(device), n
        self.set_begin_index(0)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin at an evaluation; evaluations before the next node are ignored.

        Args:
            begin_index: index in `timesteps`.
        """
        self._begin, self._call, self._run = begin_index, begin_index, None

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """c_in x."""
        if not self.reading.scaled_input:
            return sample
        t = self.times[min(self._call, len(self.times) - 1)]
        return (self.reading.coefficients(self.process, t)[0] * sample.float()).to(sample.dtype)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """α x_0 + σ ε at times as the network takes them; at the start of a run, at its first node.

        Args:
            original_samples: x_0 (B, *shape).
            noise: ε (B, *shape).
            timesteps: (B,) or ().
        """
        t = torch.stack([self._time(v) for v in torch.as_tensor(timesteps).reshape(-1).cpu()])
        t = t.expand(len(original_samples))
        alpha, sigma = (bcast(c, original_samples) for c in (self.process.alpha(t), self.process.sigma(t)))
        return alpha * original_samples + sigma * noise

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """`add_noise` with the arguments of flow schedulers."""
        return self.add_noise(sample, noise, timestep)

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, generator: Any = None,
             return_dict: bool = True, **_: Any) -> Any:
        """The point of the next evaluation, or the result after the last one.

        Args:
            model_output: the network's output at `sample`.
            timestep: its time; not used, the order of evaluations is fixed.
            sample: the point that was handed out last, which the pipeline may have changed.
            generator: generator, or one per sample.
            return_dict: return an output object instead of a tuple.
        """
        node = self._node_of(self._begin)
        new = sample
        if self._call >= self.first[node]:
            if self._run is None:
                self._run = self._new_run(node, sample.float(), generator)
            x = self._point(self._run, sample)
            new = self._run.answer(self._denoised(model_output.float(), self.times[self._call], x))
        self._call += 1
        return _output(new.to(sample.dtype), return_dict)

    def _point(self, run: StepwiseRun, sample: Tensor) -> Tensor:
        """The point of the current evaluation in float32; the run moves where the pipeline has changed it."""
        assert run.need is not None
        if self.chosen.first_step_free and self._call == 0:  # the network took x before that step
            return sample.float()
        if not torch.equal(run.need.x.to(sample.dtype), sample) and run.at_state:
            run.move(sample.float())
        return run.need.x

    def _denoised(self, F: Tensor, t: Tensor, x: Tensor) -> Tensor:
        """D(x, t) of the network's output."""
        F = F[:, :x.shape[1]] if F.shape[1] == 2 * x.shape[1] else F
        _, c_skip, c_out = self.reading.coefficients(self.process, t)
        D = c_skip * x + c_out * F
        return D if self.reading.clip is None else self.reading.clip(D)

    def _new_run(self, node: int, x: Tensor, generator: Any) -> StepwiseRun:
        nodes, method = self.nodes[node:], self.chosen
        if node and method.first_step_free:
            if self.config.method == "tuned":
                raise InputError("got a tuned sampler for a run that does not start from noise; choose another method")
            method = default_sampler(self.model, len(self.nodes), kind=self.config.method, from_noise=False).build()
        step = method.step(SamplerContext(self.model, nodes, x), dict(self.config.options or {}))
        return StepwiseRun(self.model, step, nodes, x, self._noise(generator, x), self.denoise_last, {"label": None})

    def _node_of(self, call: int) -> int:
        """The first node whose evaluations begin at this one or later."""
        return next((i for i, first in enumerate(self.first) if first >= call), len(self.first) - 1)

    def _method(self, n: int) -> tuple[Method, bool]:
        """The method for n evaluations, and whether it ends with the denoised state."""
        name = self.config.method
        if name == "tuned":
            return _tuned_method(self.config.tuning, n)
        if name in TABLES and self.model.kind != "denoiser":
            return next(iter(DISTILLED.values())), True
        if name in TABLES:
            return default_sampler(self.model, max(1, n - 1), kind=name, images=False).build(), True
        return {**ALL, **DISTILLED}[name], True

    def _grid(self, n: int, timesteps: Any, sigmas: Any, mu: float | None) -> Tensor:
        """The times of the nodes."""
        if timesteps is not None:
            return torch.stack([self._inverse_clock(v) for v in torch.as_tensor(timesteps, dtype=torch.float64)])
        if self.config.method == "tuned":
            return torch.as_tensor(self.chosen.grid, dtype=torch.float64)
        name = self.config.grid or (THEIRS if self.reading.prediction_type == "velocity" else self.chosen.grid)
        if name == THEIRS:
            return self._their_times(n, sigmas, mu)
        if n == 1:
            return torch.tensor([self.model.t_start()], dtype=torch.float64)
        early = self.chosen.ends_early and self.denoise_last
        times = time_grid(self.process, n - 1 + early + self.chosen.first_step_free, name, self.model.t_start(),
                          self.model.t_end(), self.model.sigma_data, self.chosen.start_level)
        return times[:-1] if early else times

    def _their_times(self, n: int, sigmas: Any, mu: float | None) -> Tensor:
        """The times of the pipeline's own scheduler."""
        import diffusers

        own = getattr(diffusers, self.config.source).from_config(dict(self.config.source_config))
        allowed = inspect.signature(own.set_timesteps).parameters
        extra = {k: v for k, v in (("sigmas", sigmas), ("mu", mu)) if v is not None and k in allowed}
        own.set_timesteps(None if sigmas is not None else n, **extra) if extra else own.set_timesteps(n)
        return times_of(Schedule(self.process, self.reading, ""), own)[0]

    def _evaluations(self) -> tuple[Tensor, list[int]]:
        """The times of all evaluations, and the index of the first one of each node, by a run whose answers are 0."""
        x, times, first = torch.zeros(1, 1), list[Tensor](), [0]
        if len(self.nodes) > 1 or not self.denoise_last:
            run = StepwiseRun(self.model, self._zero_step(x), self.nodes, x, lambda *_: x, self.denoise_last,
                              {"label": None})
            while run.need is not None:
                times.append(run.need.t)
                run.answer(x)
                first += [len(times)] * (run.state.index - len(first) + 1)
        else:
            times = [self.nodes[0].t]
        return torch.stack(times), first

    def _zero_step(self, x: Tensor) -> Any:
        """The step for states of one entry; a tuned one moves in coordinates that these do not have."""
        if self.config.method != "tuned":
            return self.chosen.step(SamplerContext(self.model, self.nodes, x), dict(self.config.options or {}))

        def step(state: Any, s: Node) -> Any:
            if not (self.chosen.first_step_free and state.index == 0):
                state.model.denoise(state.x, state.node)
            return state.advance(state.x, s)

        return step

    def _timesteps(self, times: Tensor) -> Tensor:
        return self.reading.time_input(self.process, times).float()

    def _time(self, timestep: Tensor) -> Tensor:
        """The time of a value of `timesteps`; a run that begins between nodes, at its first node."""
        near = (self.timesteps.cpu() - timestep).abs()
        k = int(near.argmin())
        if float(near[k]) > 1e-3 * max(1.0, abs(float(timestep))):
            return self._inverse_clock(timestep.double())
        return self.nodes[self._node_of(k)].t if k == self._begin and hasattr(self, "nodes") else self.times[k]

    def _inverse_clock(self, value: Tensor) -> Tensor:
        """The time of a value of the clock, which is linear in t."""
        if self.reading.clock != "time":
            raise InputError(f"got the time {float(value):g}, which is not in `timesteps`; choose one of those")
        t = (value - self.reading.clock_shift) / self.reading.clock_scale * self.process.T
        return t.clamp(0, self.process.T)

    def _noise(self, generator: Any, like: Tensor) -> NoiseSource:
        """The normals of the steps, by the seed of all samples or of each."""
        shape, n = tuple(like.shape[1:]), len(like)
        if isinstance(generator, list) or (generator is None and self.config.seed is None):
            states = [g.get_state().numpy() for g in generator] if generator else like.cpu().numpy()
            seeds = [_seed_of(state) for state in states]
        else:
            seeds = [self.config.seed if generator is None or self.config.seed is not None
                     else _seed_of(generator.get_state().numpy())]

        def draw(index: int, stage: int, t: Tensor, s: Tensor) -> Tensor:
            at, each = (index << 34) + stage, n if len(seeds) == 1 and not isinstance(generator, list) else 1
            return torch.cat([normal(seed, Purpose.STEP, at, 0, each, shape) for seed in seeds]).to(like)

        return draw


_ARGUMENTS = frozenset(inspect.signature(Solver.__init__).parameters)


def _output(x: Tensor, return_dict: bool) -> Any:
    """x as the output of a scheduler."""
    if not return_dict:
        return (x,)
    from diffusers.schedulers.scheduling_utils import SchedulerOutput

    return SchedulerOutput(prev_sample=x)


def _seed_of(state: Any) -> int:
    """A seed by the bytes of an array."""
    return int.from_bytes(hashlib.sha256(np.ascontiguousarray(state).tobytes()).digest()[:7], "little")


def _tuning_config(model: Model) -> dict[str, Any]:
    """The tuned samplers of a model as JSON."""
    tuning = tuning_of(model)
    table = {} if tuning is None else tuning.table.get("") or next(iter(tuning.table.values()), {})
    if tuning is None or not table:
        raise InputError("got a model without a tuned sampler; tune it first: ud.tune(model, evaluations=[...])")
    moments = {name: [list(v.shape), base64.b64encode(v.double().numpy().tobytes()).decode()]
               for name, v in tuning.moments.tensors().items()}
    return {"moments": tuning.moments.config(), "tensors": moments, "samplers": {
        str(n): {"times": s.times.tolist(), "theta": s.theta.tolist(), "first_step_free": s.first_step_free}
        for n, s in table.items()}}


def _tuned_method(config: dict[str, Any], n: int) -> tuple[Method, bool]:
    """The tuned sampler for n evaluations, or for n − 1 and the denoised state."""
    samplers = config["samplers"]
    for steps, last in ((n - 1, True), (n, False)):
        if (entry := samplers.get(str(steps))) is not None:
            tensors = {name: torch.from_numpy(np.frombuffer(base64.b64decode(data), np.float64).reshape(shape).copy())
                       for name, (shape, data) in config["tensors"].items()}
            moments = Moments.from_config(config["moments"], tensors)
            sampler = TunedSampler(torch.tensor(entry["times"], dtype=torch.float64),
                                   torch.tensor(entry["theta"], dtype=torch.float64), entry["first_step_free"])
            return sampler.method(moments), last
    raise InputError(f"got {n} steps for samplers tuned to {', '.join(samplers)} evaluations; expected one of these, "
                     "or one more")
