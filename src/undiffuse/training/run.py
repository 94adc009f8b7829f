"""The folder of a run: settings, metrics, checkpoints and the model.

    experiment.json  model/config.json  metrics.jsonl  checkpoint-STEP.safetensors (the last two)  lock
    best/checkpoint-STEP.safetensors (with patience: the one with the smallest held-out path loss, which is sampled)
    averages/checkpoint-STEP.safetensors (power averages of the weights, at every checkpoint)
    ema.json (the average that is sampled)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor

from undiffuse import storage, tuning
from undiffuse.atomic_files import remove_stale
from undiffuse.data import Dataset, open_data
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
from undiffuse.training.optimizers import trainable, unflatten
from undiffuse.training.precision import is_compiled
from undiffuse.training.state import TrainingState, profiles_schema, schema

FREE = ("save_every", "device", "compile")
"""Fields of an experiment that may differ when a run is resumed, because they do not change the result; with patience,
`save_every` does."""

_EXPERIMENT, _CONFIG, _EMA_CHOICE = "experiment.json", Path("model") / "config.json", "ema.json"


@dataclass(frozen=True)
class Run:
    """A run on disk.

    Args:
        folder: Its folder.
        experiment: Its settings.
        config: The description of the model, see `model_config.rebuild`.
    """

    folder: Path
    experiment: Experiment
    config: dict[str, Any]

    def metrics(self) -> list[dict[str, Any]]:
        """The entries of metrics.jsonl: `step` with loss, lr, grad_norm, rate, seconds; or with held_out, levels, path.

        `path` is the held-out path loss, see `loop.path_loss`.
        """
        return read_metrics(self.folder / METRICS)

    def newest_checkpoint(self, model: Denoiser, best: bool = False) -> checkpoint.Checkpoint | None:
        """The newest intact checkpoint, None before the first.

        Args:
            model: The model, for the names and shapes of the tensors.
            best: With patience, the checkpoint with the smallest held-out path loss.

        Raises:
            InputError: If it belongs to another model or experiment.
        """
        folder = self.best_folder if best and self.uses_best else self.folder
        newest = checkpoint.newest(folder, schema(model, self.experiment.weighting), say)
        expected = self._identity()
        if newest is not None:
            differing = [key for key, value in expected.items() if newest.state.get(key) != value]
            if differing:
                raise InputError(f"{newest.path} is of another {' and '.join(differing)} than its run; was "
                                 f"{_EXPERIMENT} or {_CONFIG} changed by hand?")
        return newest

    def save(self, state: TrainingState, seconds: float, environment: Mapping[str, Any]) -> None:
        """Writes a checkpoint.

        Args:
            state: The state of the training.
            seconds: Time trained so far.
            environment: The result of `machine`.
        """
        if state.step:
            self.averages_folder.mkdir(exist_ok=True)
            profiles = {"ema_profiles": state.ema_profiles.half()}
            checkpoint.save(self.averages_folder, state.step, profiles, self._identity(), keep=None)
        checkpoint.save(self.folder, state.step, state.tensors(),
                        {**self._identity(), "seconds": seconds, **environment})

    def save_best(self, state: TrainingState) -> None:
        """Saves a state as the best one."""
        self.best_folder.mkdir(exist_ok=True)
        checkpoint.save(self.best_folder, state.step, state.tensors(), self._identity(), keep=1)

    @property
    def best_folder(self) -> Path:
        """The folder of the best checkpoint."""
        return self.folder / "best"

    @property
    def uses_best(self) -> bool:
        """Whether the model is from the best checkpoint, not from the last one."""
        return self.experiment.patience > 0 and bool(checkpoint.steps(self.best_folder))

    @property
    def averages_folder(self) -> Path:
        """The folder of the power averages."""
        return self.folder / "averages"

    def load_average(self, model: Denoiser, sigma_rel: float) -> None:
        """Overwrites the weights of a model by their power average of a σ_rel.

        Raises:
            InputError: If no averages are stored, or one of them is damaged.
        """
        blank, parameters = rebuild(self.config), dict(model.net.named_parameters())
        expected, steps = {"ema_profiles": profiles_schema(blank).half()}, checkpoint.steps(self.averages_folder)
        steps = [s for s in steps if s <= max(checkpoint.steps(self.best_folder))] if self.uses_best else steps
        if not steps:
            raise InputError(f"{self.folder} has no averages yet; let the training reach its first checkpoint")
        paths = {step: checkpoint.path_of(self.averages_folder, step) for step in steps}
        stored = [(step, checkpoint.load(path, expected).tensors["ema_profiles"]) for step, path in paths.items()]
        trained = [parameters[name] for name in trainable(blank.net)]
        for p, part in zip(trained, unflatten(combined(stored, sigma_rel), trained), strict=True):
            p.data.copy_(part)

    def ema_choice(self) -> float | None:
        """The σ_rel that `undiffuse ema` chose for this run; None: the exponential average."""
        file = self.folder / _EMA_CHOICE
        if not file.is_file():
            return None
        try:
            value = float(read_json(file)["sigma_rel"])
            exponent(value)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file} does not name an average ({error}); `undiffuse ema {self.folder} --keep 0.1` "
                             "writes it again") from None
        return value

    def choose_ema(self, sigma_rel: float | None) -> None:
        """Makes `load` return the power average of a σ_rel; None: the exponential average."""
        if sigma_rel is None:
            (self.folder / _EMA_CHOICE).unlink(missing_ok=True)
        else:
            exponent(sigma_rel)
            write_json(self.folder / _EMA_CHOICE, {"sigma_rel": sigma_rel})

    def _identity(self) -> dict[str, str]:
        every = self.experiment.save_every if self.experiment.patience else 1
        return {"experiment": self.experiment.replace(save_every=every, device="cpu", compile="off").digest(),
                "model": sha256_of(canonical(self.config))}


def open_run(folder: Path | str) -> Run:
    """The run in a folder; InputError if there is none."""
    folder = Path(folder)
    if not (folder / _EXPERIMENT).is_file():
        raise InputError(f"{folder} is not the folder of a run; expected one that `undiffuse train` wrote")
    return Run(folder, read_experiment(folder), read_json(folder / _CONFIG))


@overload
def load(run: Path | str, which: Literal["running", "net"], device: str = ...) -> Denoiser: ...


@overload
def load(run: Path | str, which: str = ..., device: str = ...) -> Denoiser | tuning.Tuned: ...


def load(run: Path | str, which: str = "ema", device: str = "auto") -> Denoiser | tuning.Tuned:
    """The model of a run, with the tuned sampler in its folder if it was fitted to these weights.

    The data are not needed. Damaged checkpoints are skipped with a message. With patience the model is from the best
    checkpoint.

    Args:
        run: Folder of the run.
        which: "ema", the average chosen by `undiffuse ema`, by default the exponential one; "running", the exponential
            average; "net", the weights without averaging.
        device: Where the model is placed.

    Raises:
        InputError: If there is no intact checkpoint.
        MachineError: If the device does not exist.
    """
    if which not in ("ema", "running", "net"):
        raise InputError(f"got which={which!r}; expected ema, running or net")
    opened = open_run(run)
    model = rebuild(opened.config)
    newest = opened.newest_checkpoint(model, best=True)
    if newest is None:
        raise InputError(f"{run} has no checkpoint yet; let the training reach its first one")
    if newest.step == 0 and not opened.uses_best:
        say(f"{run} has weights of update 0, which have learned nothing; `undiffuse train {run}` continues it")
    model.net.load_state_dict(storage.with_prefix(newest.tensors, "net." if which == "net" else "ema."))
    sigma_rel = opened.ema_choice()
    if which == "ema" and sigma_rel is not None:
        opened.load_average(model, sigma_rel)
    if model.moments is not None:
        model.moments = Moments.from_config(model.moments.config(), storage.with_prefix(newest.tensors, "moments."))
    if model.regression is not None:
        model.regression = model.regression.restored(storage.with_prefix(newest.tensors, "regression."))
    model = model.to(pick_device(device)).eval().requires_grad_(False)
    model.folder = Path(run)
    return tuning.attach(model, Path(run), say) if which == "ema" else model


def load_data(run: Path | str, data: Dataset | None = None) -> tuple[Dataset, Dataset | None]:
    """The training rows and the held-out rows (None without any) of a run.

    Args:
        run: Folder of the run.
        data: The data of a run that was trained on data in memory.

    Raises:
        InputError: If the run was trained on other data.
    """
    opened = open_run(run)
    dataset = load_dataset(opened.experiment) if data is None else data
    check_data(opened, dataset)
    train, held_out, _ = split_held_out(dataset, opened.experiment.held_out)
    return train, held_out


def load_dataset(experiment: Experiment) -> Dataset:
    """All the data that an experiment names; InputError if they were in memory."""
    if experiment.data.startswith(MEMORY):
        raise InputError(f"got an experiment on data in memory ({experiment.data.removeprefix(MEMORY)}); pass the data "
                         "too, or save them to a file and train on that")
    return open_data(experiment.data, **experiment.data_options())


def split_held_out(data: Dataset, held_out: int) -> tuple[Dataset, Dataset | None, Tensor]:
    """The training rows, the held-out rows, and the number of each training row in the data.

    The held-out rows do not depend on the seed of the training.
    """
    if held_out == 0:
        return data, None, torch.arange(len(data))
    train, test = data.split_rows(held_out)
    return data.take(train), data.take(test), train


def open_or_create(folder: Path, recipe: Recipe, data: Dataset, train: Dataset) -> Run:
    """The run in a folder, or a new one; nothing is written yet.

    Args:
        folder: Folder of the run.
        recipe: The settings, and the transform if it has been fitted.
        data: All the data.
        train: The training rows.

    Raises:
        InputError: If the folder holds anything else, naming what differs.
    """
    experiment = recipe.experiment
    if (folder / _EXPERIMENT).is_file():
        _check_experiment(folder, experiment)
        if (folder / _CONFIG).is_file():
            run = Run(folder, experiment, read_json(folder / _CONFIG))
            check_data(run, data)
            return run
    elif folder.exists() and (not folder.is_dir() or _foreign(folder)):
        raise InputError(f"{folder} is not a run; choose another folder or empty it")
    return Run(folder, experiment, describe(experiment, train, data.fingerprint(), recipe.transform, recipe.data_std))


def resume(run: Run, state: TrainingState, environment: Mapping[str, Any]) -> float:
    """Brings a state to the newest checkpoint, or writes the first files of a new run; call it under the lock.

    Args:
        run: The run.
        state: The state, which is overwritten.
        environment: The result of `machine`.

    Returns:
        The seconds trained so far.

    Raises:
        InputError: If the run has metrics and no checkpoint.
    """
    remove_stale(run.folder)
    if (run.folder / _EXPERIMENT).is_file():
        _check_experiment(run.folder, run.experiment)
    newest = run.newest_checkpoint(state.model)
    if newest is not None:
        state.restore(newest.step, newest.tensors)
        _report_resume(newest, environment)
        return float(newest.state["seconds"])
    if run.metrics():
        raise InputError(f"{run.folder} has been trained, but its checkpoints are gone; choose another folder")
    write_json(run.folder / _EXPERIMENT, run.experiment.to_dict())
    (run.folder / _CONFIG).parent.mkdir(exist_ok=True)
    write_json(run.folder / _CONFIG, run.config)
    run.save(state, 0.0, environment)
    return 0.0


def machine(state: TrainingState, processes: int = 1) -> dict[str, Any]:
    """Properties of the machine that decide the last bits of a result."""
    return {"versions": versions(), "threads": torch.get_num_threads(), "device": state.model.device.type,
            "processes": 1 if state.experiment.deterministic_reduction else processes,
            "compiled": is_compiled(state.model)}


def _foreign(folder: Path) -> bool:
    """Whether a folder without a run holds files that a run killed at its start does not leave."""
    return any(path.name not in storage.FILES and not path.match(f".{_EXPERIMENT}.*.tmp") for path in folder.iterdir())


def _report_resume(newest: checkpoint.Checkpoint, environment: Mapping[str, Any]) -> None:
    """Prints the step from which a run resumes, and changes of the machine that may change the last bits."""
    before = newest.state
    changed = [f"{key} {before[key]} -> {value}" for key, value in environment.items() if before[key] != value]
    warning = f"; results may differ in the last bits ({', '.join(changed)})" if changed else ""
    say(f"resuming from step {newest.step}{warning}")


def _check_experiment(folder: Path, experiment: Experiment) -> None:
    """InputError if a folder holds a run with other settings."""
    stored = read_experiment(folder)
    differing = [f"{name} is {getattr(stored, name)!r} there and {getattr(experiment, name)!r} here"
                 for name in experiment.differences(stored)
                 if name not in FREE or (name == "save_every" and experiment.patience)]
    if differing:
        raise InputError(f"{folder} holds another run: {', '.join(differing)}; choose another folder")


def check_data(run: Run, data: Dataset) -> None:
    """InputError if these are not the data of a run."""
    described: Mapping[str, Any] = run.config.get("data", {})
    if described.get("fingerprint") != data.fingerprint():
        raise InputError(f"{run.folder} was trained on other data: {described.get('rows')} training rows of "
                         f"{described.get('name')}, and these {len(data)} rows of {data.name} are not the same; choose "
                         "another folder, or pass the data of the run")
