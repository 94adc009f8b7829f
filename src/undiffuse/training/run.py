"""The folder of a run: what was asked for, what was measured, and the model.

    experiment.json  model/config.json  metrics.jsonl  checkpoint-STEP.safetensors (the last two)  lock
    best/checkpoint-STEP.safetensors (with patience: the one of the least held-out path loss, which is sampled)
    averages/checkpoint-STEP.safetensors (power averages of the weights, at every save)  ema.json (which one is sampled)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor

from undiffuse import tuning
from undiffuse.data import Dataset, locks, open_data
from undiffuse.data.writers import remove_stale_files
from undiffuse.errors import InputError
from undiffuse.experiment import MEMORY, Experiment, Recipe
from undiffuse.experiment import read as read_experiment
from undiffuse.hashing import canonical, sha256_of
from undiffuse.model import Denoiser
from undiffuse.moments import Moments
from undiffuse.progress import say
from undiffuse.training import checkpoint
from undiffuse.training.checkpoint import read_json, write_json
from undiffuse.training.ema import combined, exponent
from undiffuse.training.metrics_log import NAME as METRICS
from undiffuse.training.metrics_log import read_metrics
from undiffuse.training.model_config import describe, pick_device, rebuild, versions
from undiffuse.training.optimizers import parts, trained
from undiffuse.training.precision import is_compiled
from undiffuse.training.state import State, schema, traces

FREE = ("save_every", "device", "compile")
"""The fields of an experiment that may change when a run is continued: they do not change the outcome. With patience
`save_every` does."""

_EXPERIMENT, _CONFIG, _CHOSEN = "experiment.json", Path("model") / "config.json", "ema.json"


@dataclass(frozen=True)
class Run:
    """A run on disk: its folder, its experiment, and `config`, which describes the model (see `build.rebuild`)."""

    folder: Path
    experiment: Experiment
    config: dict[str, Any]

    def metrics(self) -> list[dict[str, Any]]:
        """What was measured: entries with `step` and loss, lr, grad_norm, rate, seconds, or held_out, levels and path.

        `path` is the held-out path loss, see `loop.path_loss`.
        """
        return read_metrics(self.folder / METRICS)

    def checkpoint(self, model: Denoiser, best: bool = False) -> checkpoint.Checkpoint | None:
        """The newest intact checkpoint, if there is one; InputError if it belongs to another model or experiment.

        best: that of the least held-out path loss, where the run has patience and a measurement was made.
        """
        folder = self.best if best and self.patient else self.folder
        found = checkpoint.newest(folder, schema(model, self.experiment.weighting), say)
        expected = self._identity()
        if found is not None:
            differing = [key for key, value in expected.items() if found.state.get(key) != value]
            if differing:
                raise InputError(f"{found.path} does not belong to its run, for another {' and '.join(differing)}; was "
                                 f"{_EXPERIMENT} or {_CONFIG} changed by hand?")
        return found

    def save(self, state: State, seconds: float, on: Mapping[str, Any]) -> None:
        """Writes a checkpoint of a state after so many seconds of training, on what `machine` says."""
        about: dict[str, Any] = {"seconds": seconds, "block": self.experiment.block,
                                 "data": self.config["data"]["fingerprint"]}
        if state.step:
            self.averages.mkdir(exist_ok=True)
            checkpoint.save(self.averages, state.step, {"traces": state.traces.half()}, self._identity(), keep=None)
        checkpoint.save(self.folder, state.step, state.tensors(), {**self._identity(), **about, **on})

    def keep(self, state: State) -> None:
        """Makes a state the best one."""
        self.best.mkdir(exist_ok=True)
        checkpoint.save(self.best, state.step, state.tensors(), self._identity(), keep=1)

    @property
    def best(self) -> Path:
        """The folder of the best state."""
        return self.folder / "best"

    @property
    def patient(self) -> bool:
        """Whether the model is that of the best state, and not of the last."""
        return self.experiment.patience > 0 and bool(checkpoint.steps(self.best))

    @property
    def averages(self) -> Path:
        """The folder of the power averages."""
        return self.folder / "averages"

    def average(self, model: Denoiser, length: float) -> None:
        """Gives a model the power average of its weights whose relative deviation σ_rel is `length`.

        Raises InputError where none are stored, or one of them is damaged.
        """
        fresh, own = rebuild(self.config), dict(model.net.named_parameters())
        form, steps = {"traces": traces(fresh).half()}, checkpoint.steps(self.averages)
        steps = [step for step in steps if step <= max(checkpoint.steps(self.best))] if self.patient else steps
        if not steps:
            raise InputError(f"{self.folder} has no averages yet; let the training reach its first checkpoint")
        stored = [(step, checkpoint.load(checkpoint.path_of(self.averages, step), form).tensors["traces"])
                  for step in steps]
        parameters = [own[name] for name in trained(fresh.net)]
        for p, part in zip(parameters, parts(combined(stored, length), parameters), strict=True):
            p.data.copy_(part)

    def chosen(self) -> float | None:
        """The σ_rel that `undiffuse ema` chose for this run; None: the running average."""
        file = self.folder / _CHOSEN
        return float(read_json(file)["length"]) if file.is_file() else None

    def choose(self, length: float | None) -> None:
        """Makes the power average of that σ_rel the one that `load` gives; None: the running average."""
        if length is None:
            (self.folder / _CHOSEN).unlink(missing_ok=True)
        else:
            exponent(length)
            write_json(self.folder / _CHOSEN, {"length": length})

    def _identity(self) -> dict[str, str]:
        every = self.experiment.save_every if self.experiment.patience else 1
        return {"experiment": self.experiment.replace(save_every=every, device="cpu", compile="off").digest(),
                "model": sha256_of(canonical(self.config))}


def open_run(folder: Path | str) -> Run:
    """The run in a folder; InputError if there is none."""
    folder = Path(folder)
    if not (folder / _EXPERIMENT).is_file():
        raise InputError(f"{folder} holds no run; expected the folder that `undiffuse train` wrote")
    return Run(folder, read_experiment(folder), read_json(folder / _CONFIG))


@overload
def load(run: Path | str, which: Literal["running", "net"], device: str = ...) -> Denoiser: ...


@overload
def load(run: Path | str, which: str = ..., device: str = ...) -> Denoiser | tuning.Tuned: ...


def load(run: Path | str, which: str = "ema", device: str = "auto") -> Denoiser | tuning.Tuned:
    """The model of a run: which = "ema", the average of the weights that was chosen, or "net", the weights themselves.

    The average is the running one (always with which = "running"), unless `undiffuse ema` chose a power average. With
    patience all are those of the best save.
    Needs neither the data nor the network; a damaged checkpoint is passed over with a line that says so. A tuning that
    lies in the folder and was made for these weights comes with it.
    Raises InputError if there is no intact one, MachineError if the device is missing.
    """
    if which not in ("ema", "running", "net"):
        raise InputError(f"got which={which!r}; expected ema, running or net")
    opened = open_run(run)
    model = rebuild(opened.config)
    found = opened.checkpoint(model, best=True)
    if found is None:
        raise InputError(f"{run} has no checkpoint yet; let the training reach its first one")
    model.net.load_state_dict(_part(found.tensors, "net" if which == "net" else "ema"))
    length = opened.chosen()
    if which == "ema" and length is not None:
        opened.average(model, length)
    if model.moments is not None:
        model.moments = Moments.from_config(model.moments.config(), _part(found.tensors, "moments"))
    model = model.to(pick_device(device)).eval().requires_grad_(False)
    model.folder = Path(run)
    return tuning.attach(model, Path(run), say) if which == "ema" else model


def _part(tensors: Mapping[str, Tensor], owner: str) -> dict[str, Tensor]:
    """The tensors named owner.NAME, by NAME."""
    return {k.removeprefix(f"{owner}."): t for k, t in tensors.items() if k.startswith(f"{owner}.")}


def load_data(run: Path | str, data: Dataset | None = None) -> tuple[Dataset, Dataset | None]:
    """The training rows and the held-out rows (None if there are none) of a run.

    `data` are the data of a run that was trained on data in memory. Raises InputError if they are not those of the run.
    """
    opened = open_run(run)
    whole = load_dataset(opened.experiment) if data is None else data
    same_data(opened, whole)
    train, held, _ = split_held_out(whole, opened.experiment.held_out)
    return train, held


def load_dataset(experiment: Experiment) -> Dataset:
    """All the data that an experiment names; InputError where they were in memory."""
    if experiment.data.startswith(MEMORY):
        raise InputError(f"got an experiment on data in memory ({experiment.data.removeprefix(MEMORY)}); give the data "
                         "too, or save them to a file and train on that")
    return open_data(experiment.data, size=experiment.size, label=experiment.label, condition=experiment.condition,
                     first=experiment.first)


def split_held_out(data: Dataset, held_out: int) -> tuple[Dataset, Dataset | None, Tensor]:
    """The training rows, the held-out rows, and the numbers that the training rows have in the data.

    The same rows are held out whatever the seed of the training.
    """
    if held_out == 0:
        return data, None, torch.arange(len(data))
    train, held = data.split(held_out)
    numbers, _ = Dataset(torch.arange(len(data)), None, data.kind, data.name).split(held_out)
    return train, held, numbers.x


def open_or_create(folder: Path, recipe: Recipe, data: Dataset, train: Dataset) -> Run:
    """The run that continues what is in a folder, or a new one; nothing is written yet.

    Raises InputError, naming what differs, if the folder holds anything else.
    """
    experiment = recipe.experiment
    if (folder / _EXPERIMENT).is_file():
        _same_experiment(folder, experiment)
        if (folder / _CONFIG).is_file():
            run = Run(folder, experiment, read_json(folder / _CONFIG))
            same_data(run, data)
            return run
    elif folder.exists() and (not folder.is_dir() or _foreign(folder)):
        raise InputError(f"{folder} holds something that is no run; choose another folder or empty it")
    return Run(folder, experiment, describe(experiment, train, data.fingerprint(), recipe.transform, recipe.deviation))


def resume(run: Run, state: State, on: Mapping[str, Any]) -> float:
    """Brings a state to the newest checkpoint, or writes a new run's first files; the seconds trained so far.

    `on` is what `machine` says. To be called under the lock. Raises InputError rather than start afresh where a
    checkpoint is missing.
    """
    remove_stale_files(run.folder)
    if (run.folder / _EXPERIMENT).is_file():
        _same_experiment(run.folder, run.experiment)
    found = run.checkpoint(state.model)
    if found is not None:
        state.restore(found.step, found.tensors)
        _tell(found, on)
        return float(found.state["seconds"])
    if run.metrics():
        raise InputError(f"{run.folder} has been trained, but its checkpoints are gone; choose another folder")
    write_json(run.folder / _EXPERIMENT, run.experiment.to_dict())
    (run.folder / _CONFIG).parent.mkdir(exist_ok=True)
    write_json(run.folder / _CONFIG, run.config)
    run.save(state, 0.0, on)
    return 0.0


def machine(state: State, processes: int = 1) -> dict[str, Any]:
    """What decides the last bits of a result, besides the run itself."""
    return {"versions": versions(), "threads": torch.get_num_threads(), "device": state.model.device.type,
            "processes": 1 if state.experiment.exact else processes, "compiled": is_compiled(state.model)}


def _foreign(folder: Path) -> bool:
    """Whether a folder without a run holds more than what a run leaves that is killed at its very start."""
    return any(path.name not in locks.FILES and not path.match(f".{_EXPERIMENT}.*.tmp") for path in folder.iterdir())


def _tell(found: checkpoint.Checkpoint, now: Mapping[str, Any]) -> None:
    """Says where a run goes on, and what has changed on the machine that may change the last bits."""
    before = {"compiled": False, **found.state}
    changed = [f"{key} {before[key]} -> {value}" for key, value in now.items() if before[key] != value]
    exact = f"; results may differ in the last bits ({', '.join(changed)})" if changed else ""
    say(f"continuing from step {found.step}{exact}")


def _same_experiment(folder: Path, experiment: Experiment) -> None:
    there = read_experiment(folder)
    differing = [f"{name} is {getattr(there, name)!r} there and {getattr(experiment, name)!r} here"
                 for name in experiment.differences(there)
                 if name not in FREE or (name == "save_every" and experiment.patience)]
    if differing:
        raise InputError(f"{folder} holds another run: {', '.join(differing)}; choose another folder")


def same_data(run: Run, data: Dataset) -> None:
    """InputError where these are not the data of a run."""
    about: Mapping[str, Any] = run.config.get("data", {})
    if about.get("fingerprint") != data.fingerprint():
        raise InputError(f"{run.folder} was trained on other data: {about.get('rows')} training rows of "
                         f"{about.get('name')}, and these {len(data)} rows of {data.name} are not the same; choose "
                         "another folder, or give the data of the run")
