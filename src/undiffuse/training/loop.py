"""The training loop.

All mutable state is in `TrainingState`, and the batch of an update is a function of its number; a run that was
interrupted and resumed therefore ends with bit-identical weights.

The first signal (Ctrl-C, SIGTERM) makes training write a checkpoint and stop; the second one ends it at once.
"""

from __future__ import annotations

import shlex
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor

from undiffuse.data import Dataset, save_samples
from undiffuse.data.dataset import has_missing
from undiffuse.data.lazy import Lazy
from undiffuse.data.pixel_units import PixelUnits
from undiffuse.errors import InputError
from undiffuse.experiment import Experiment, Recipe
from undiffuse.launcher import is_first
from undiffuse.loss import NoiseLevelDistribution
from undiffuse.model import Denoiser
from undiffuse.predictions import WITH_MOMENTS
from undiffuse.progress import Progress, say
from undiffuse.samplers.driver import sample
from undiffuse.storage import locked
from undiffuse.training import checkpoint
from undiffuse.training.batches import Feed, batch_gradient, batch_losses
from undiffuse.training.diagnose import explain
from undiffuse.training.distributed import PEER_TIMEOUT, ProcessGroup, process_group
from undiffuse.training.early_stopping import best_checkpoint, should_stop, stopping_summary
from undiffuse.training.metrics_log import Log, check_trackers, tracked
from undiffuse.training.model_config import initialized, pick_device
from undiffuse.training.optimizers import learning_rate
from undiffuse.training.precision import configure
from undiffuse.training.run import Run, load_dataset, machine, open_or_create, resume, split_held_out
from undiffuse.training.series_fills import keep_imputer
from undiffuse.training.state import TrainingState

_STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class Signals:
    """While it is open, the first SIGINT, SIGTERM or SIGHUP only sets `number`; later ones have the default effect.

    Ignored signals (as under nohup) stay ignored. Outside the main thread, where Python delivers no signals, it has no
    effect.
    """

    def __init__(self) -> None:
        self.number = 0
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in _STOP_SIGNALS:
                self._watch(name)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _watch(self, name: str) -> None:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
            self._handlers[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())


CHECK_EVERY = 32  # updates between checks on a GPU; on a CPU every update is checked
ENTRIES = 500  # entries in metrics.jsonl
HELD_OUT_LOSS_ROWS = 1024  # held-out rows of the held-out loss
PATH_LOSS_ROWS = 256  # rows and noise levels of the path loss
_COMPLETE = 50  # complete held-out rows from which only these are measured
LEVEL_BINS = 8  # noise levels at which the held-out loss is reported
_BY_CALLER = 256  # not the number of a signal: `stop` returned True


def train(experiment: Experiment | Recipe, out: Path | str, *, progress: bool = True, data: Dataset | None = None,
          stop: Callable[[int], bool] | None = None, peer_timeout: float = PEER_TIMEOUT, track: Sequence[str] = (),
          preview: int = 0) -> Denoiser:
    """Trains, or resumes the training in the folder `out`, and returns the model with the averaged weights.

    SIGINT, SIGTERM and SIGHUP write a checkpoint and exit with 128 + n. Under torchrun the processes train together and
    the main process writes. The last good checkpoint always remains.

    Args:
        experiment: The settings, or a recipe with the data that it has opened.
        out: Folder of the run.
        progress: Show the progress on stderr.
        data: The data; None: opened from the source in the experiment.
        stop: stop(step) is called after every update; if it returns True, the state is saved and training ends.
        peer_timeout: Seconds after which a process that does not answer is considered lost.
        track: Trackers that receive the metrics.
        preview: Number of sample images that are saved per checkpoint, in previews/STEP.png.

    Returns:
        The model after the last update; with `patience`, the model of the best checkpoint.

    Raises:
        InputError: If `out` holds another run or other data, or an update is not finite (it is not applied).
        MachineError: For a full disk, a folder in use, or a lost process.
    """
    recipe = experiment if isinstance(experiment, Recipe) else Recipe(experiment, data=data)
    experiment = recipe.experiment
    dataset = recipe.data or load_dataset(experiment)
    rows, held_out, numbers = split_held_out(dataset, experiment.held_out)
    device, folder = pick_device(experiment.device), Path(out)
    with process_group(device, experiment.deterministic_reduction, peer_timeout) as group, ExitStack() as stack:
        group.broadcast_object(lambda: _check(group, experiment, held_out, track))
        config = group.broadcast_object(lambda: open_or_create(folder, recipe, dataset, rows).config)
        run, model = Run(folder, experiment, config), initialized(config, experiment.seed, rows).to(device)
        state = TrainingState(experiment, model)
        layers = configure(model, experiment, config["precision"])
        feed = Feed(experiment, rows, model)
        batch_losses(feed, feed.at(0, torch.zeros(1, dtype=torch.int64)))  # fails before anything is written
        signals = stack.enter_context(Signals())
        seconds = _start(group, run, state, stack)
        log = _log(run, state.step, track, stack) if group.is_main else None
        if progress and group.is_main and "auto" in (experiment.precision, experiment.compile):
            say(layers)
        bar = stack.enter_context(Progress(state.step, experiment.steps, progress and group.is_main))
        training = _Training(group, run, state, feed, held_out, numbers, log, bar, seconds, preview)
        ending = training.update(lambda step: _BY_CALLER * bool(stop and stop(step)) or signals.number)
        if experiment.patience and not ending:
            training.restore_best()
    if ending % _BY_CALLER:
        if group.is_main:
            say(f"stopped by signal {ending} at step {state.step}; `{_resume_command(run)}` resumes the run")
        raise SystemExit(128 + ending)
    state.ema_model.folder = folder
    if is_first():
        keep_imputer(folder, state.ema_model, rows, held_out)
    return state.ema_model


def _check(group: ProcessGroup, experiment: Experiment, held_out: Dataset | None, track: Sequence[str]) -> None:
    """InputError for settings that contradict one another, and for an unknown tracker."""
    check_trackers(track)
    group.check_batch_size(experiment.batch_size)
    if experiment.patience and held_out is None:
        raise InputError(f"got patience={experiment.patience} without held-out rows to measure on; set held_out above "
                         "0, or patience=0")


def _start(group: ProcessGroup, run: Run, state: TrainingState, stack: ExitStack) -> float:
    """Locks the run, restores the newest checkpoint on all processes, and returns the seconds trained so far."""
    def first() -> list[float]:
        run.folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(locked(run.folder))
        return [resume(run, state, machine(state, group.size)), state.step]

    seconds, step = group.broadcast_object(first)
    group.broadcast(state.tensors().values())
    state.set_step(int(step))
    return float(seconds)


def _log(run: Run, step: int, track: Sequence[str], stack: ExitStack) -> Log:
    """The open metrics file with its trackers."""
    listeners = stack.enter_context(tracked(track, run.folder, run.experiment.to_dict()))
    return stack.enter_context(Log(run.folder, step, listeners))


def draw_preview(run: Run, model: Denoiser, step: int, n: int) -> None:
    """Saves the first n samples of seed 0 as previews/STEP.png, with the classes in turn.

    Args:
        run: Run whose folder receives the image.
        model: Model to sample from.
        step: Number of updates so far, the name of the file.
        n: Number of samples.
    """
    folder = run.folder / "previews"
    cond: dict[str, Any] = {"label": torch.arange(n) % model.classes} if model.classes else {}
    folder.mkdir(exist_ok=True)
    save_samples(folder / f"{step}.png", sample(model, n, **cond).x, units=PixelUnits.from_config(run.config["data"]))


@dataclass
class _Training:
    """One run in progress."""

    group: ProcessGroup
    run: Run
    state: TrainingState
    feed: Feed
    held_out: Dataset | None
    numbers: Tensor
    log: Log | None
    bar: Progress
    seconds: float
    preview: int = 0

    def __post_init__(self) -> None:
        self.experiment, self.device = self.run.experiment, self.state.model.device
        if self.run.config["data"]["kind"] != "image":
            self.preview = 0
        self.held_out_feed = None if self.held_out is None else Feed(self.experiment, _measured(self.held_out),
                                                                     self.state.model)
        self.log_every = max(1, self.experiment.steps // ENTRIES)
        self.check_every = 1 if self.device.type == "cpu" else CHECK_EVERY
        self.start = time.monotonic() - self.seconds
        self.last_entry = (self.state.step, time.monotonic())
        self.loss, self.rate = float("nan"), 0.0

    def update(self, stop: Callable[[int], int]) -> int:
        """Makes all remaining updates, or ends when `stop` returns a number on some process: that number, else 0."""
        state, request, ending, done = self.state, 0, 0, self._start_patience()
        while state.step < self.experiment.steps and not ending and not done:
            state.update(self.group.batch_sum(self._gradient, self.experiment.batch_size))
            request = request or stop(state.step)
            if self.group.size == 1 or self._is_due(self.check_every):
                ending = self.group.all_reduce_max(request, self.device)
            log = self._is_due(self.log_every) or state.step == 1
            save = self._is_due(self.experiment.save_every) or ending > 0
            if log or save or self._is_due(self.check_every):
                self.check_update()
            if log:
                self.log_metrics()
            if save:
                self.save_checkpoint()
                done = self.update_best()
        return ending

    def _gradient(self, first: int, end: int) -> Tensor:
        """The contribution of some slots of the batch to the gradient of its mean loss."""
        return batch_gradient(self.state, self.feed, first, end)

    def _is_due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self.experiment.steps

    def check_update(self) -> None:
        """Waits for the device and raises an error if an update was not finite and therefore not applied."""
        if int(self.state.steps_applied) < self.state.step:
            raise self.group.error_on_main(explain(self.state, self.feed, self.numbers, self._advice()))
        self.bar.update(self.state.step, self.loss, self.rate)

    def log_metrics(self) -> None:
        """Adds the means since the last entry to the metrics."""
        (before, then), now = self.last_entry, time.monotonic()
        step = self.state.step
        updates, loss, norm = self.state.sums.tolist()
        self.loss, norm = loss / updates, norm / updates
        self.rate = (step - before) * self.experiment.batch_size / max(now - then, 1e-9)
        if self.log is not None:
            self.log.write(step=step, loss=self.loss, lr=learning_rate(self.experiment, step - 1), grad_norm=norm,
                           rate=round(self.rate, 1), seconds=round(now - self.start, 3))
        self.state.sums.zero_()
        self.last_entry = (step, now)

    def save_checkpoint(self) -> None:
        """Evaluates on held-out rows if due and writes a checkpoint, on the main process; the others wait."""
        if self.group.all_reduce_max(int(not self.state.is_finite()), self.device):
            raise self.group.error_on_main(InputError(f"the weights are not finite after step {self.state.step}; "
                                                      f"{self._advice()}"))
        step, model = self.state.step, self.state.ema_model
        if self.log is not None:
            if self._is_due(self.experiment.save_every):
                self._log_held_out()
            self.log.sync()
            self.run.save(self.state, time.monotonic() - self.start, machine(self.state, self.group.size))
            if self.preview:
                draw_preview(self.run, model, step, self.preview)
        self.group.barrier()

    def _log_held_out(self) -> None:
        """Adds the losses of the average model on held-out rows to the metrics, if there are any."""
        if self.log is not None and self.held_out_feed is not None:
            self.held_out_feed.model, last = self.state.ema_model, self.experiment.steps
            self.log.write(step=self.state.step, **held_out_loss(self.held_out_feed, last),
                           path=path_loss(self.held_out_feed, last))

    def _start_patience(self) -> bool:
        """`update_best` at the start: an initial model that is the best linear denoiser is the first candidate."""
        first = self.state.step == 0 and self.state.model.prediction_type in WITH_MOMENTS
        if self.experiment.patience and first and best_checkpoint(self.run.metrics()) is None:
            self._log_held_out()
        return self.update_best()

    def update_best(self) -> bool:
        """With patience: saves the state if it is the best so far, and returns whether training ends."""
        patience, done = self.experiment.patience, False
        if not patience:
            return False
        if self.log is not None:
            entries = self.run.metrics()
            best, done = best_checkpoint(entries), should_stop(entries, patience)
            if best is not None and best[0] == self.state.step:
                self.run.save_best(self.state)
        return bool(self.group.all_reduce_max(int(done), self.device))

    def restore_best(self) -> None:
        """Brings all processes to the best state and reports why the training has ended."""
        state = self.state

        def first() -> int:
            best = self.run.newest_checkpoint(state.model, best=True)
            if best is not None:
                state.restore(best.step, best.tensors)
            say(stopping_summary(self.run.metrics(), self.experiment))
            return state.step

        step = self.group.broadcast_object(first)
        self.group.broadcast(state.tensors().values())
        state.set_step(int(step))

    def _advice(self) -> str:
        last = max(checkpoint.steps(self.run.folder), default=0)
        return ("correct the data or start a new run with a lower lr; "
                f"`{_resume_command(self.run)}` would repeat it from the checkpoint of step {last}")


def _measured(held_out: Dataset) -> Dataset:
    """The complete rows, whose loss does not depend on how missing values are filled, if they suffice."""
    if isinstance(held_out.x, Lazy) or not has_missing(held_out):
        return held_out
    complete = (~held_out.x.isnan().flatten(1).any(1)).nonzero()[:, 0]
    return held_out.take(complete) if _COMPLETE <= len(complete) < len(held_out) else held_out


@torch.no_grad()
def held_out_loss(feed: Feed, step: int, n: int = HELD_OUT_LOSS_ROWS, repeat: bool = False) -> dict[str, Any]:
    """The held-out loss: `held_out`, its mean, and `levels`, pairs (mean log σ/α, mean loss) of eight equal bins.

    Args:
        feed: The held-out rows and the model to evaluate.
        step: Update number that seeds the noise levels and the noise; one after the last update of the training.
        n: Largest number of rows.
        repeat: Whether fewer rows are used several times, at different noise levels.
    """
    rows = torch.arange(n) % len(feed.x) if repeat else torch.arange(min(len(feed.x), n))
    batch = feed.at(step, rows)
    losses = torch.cat([batch_losses(feed, block) for block in batch.blocks(feed.model.block)]).double().cpu()
    log_sigma = -feed.model.sde.log_snr(batch.t)
    bins = [(float(a.mean()), float(b.mean())) for a, b in
            zip(log_sigma.tensor_split(LEVEL_BINS), losses.tensor_split(LEVEL_BINS), strict=True) if len(a)]
    return {"held_out": float(losses.mean()), "levels": bins}


def path_loss(feed: Feed, step: int) -> float:
    """The path loss ∫ e^{2λ} E‖D − x_0‖² dλ/d on 256 rows, in nats per entry; it does not depend on the
    weighting and noise levels of training.

    It is the integral in the likelihood bound, so it compares runs with different weightings and noise distributions;
    its excess over the value of the exact denoiser is the path-KL.

    Args:
        feed: The held-out rows and the model to evaluate.
        step: See `held_out_loss`.

    Reference: Song et al. (2021), theorem 1. arXiv:2101.09258; Kingma et al. (2021), eq. 12. arXiv:2107.00630
    """
    weighted = copy(feed)
    weighted.experiment = feed.experiment.replace(weighting="likelihood")
    weighted.levels = NoiseLevelDistribution("importance", sigma_data=feed.model.sigma_data)
    return float(held_out_loss(weighted, step, PATH_LOSS_ROWS, repeat=True)["held_out"])


def _resume_command(run: Run) -> str:
    """The command that resumes a run."""
    return shlex.join(["undiffuse", "train", str(run.folder)])
