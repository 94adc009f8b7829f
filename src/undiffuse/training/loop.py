"""The training loop: there is one.

State and randomness are apart: what changes is in `State`, what an update is made from is a function of its number.
A run that was interrupted at any moment therefore ends with the same weights, bit for bit.

Signals: the first one asks a training to save and stop, the second one stops it at once.
"""

from __future__ import annotations

import shlex
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import copy
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor

from undiffuse.data import Dataset, save_samples
from undiffuse.data.locks import locked
from undiffuse.errors import InputError
from undiffuse.experiment import Experiment, Recipe
from undiffuse.loss import NoiseLevelDistribution
from undiffuse.model import Denoiser
from undiffuse.progress import Progress, say
from undiffuse.samplers.driver import sample
from undiffuse.training import checkpoint
from undiffuse.training.batches import Feed
from undiffuse.training.diagnose import batch_gradient, batch_losses, explain
from undiffuse.training.distributed import PEER_TIMEOUT, ProcessGroup, process_group
from undiffuse.training.early_stopping import best_checkpoint, should_stop, stopping_summary
from undiffuse.training.metrics_log import Log, tracked
from undiffuse.training.model_config import initialized, pick_device
from undiffuse.training.optimizers import learning_rate
from undiffuse.training.precision import configure
from undiffuse.training.run import Run, load_dataset, machine, open_or_create, resume, split_held_out
from undiffuse.training.state import State

_ASK_TO_STOP = ("SIGINT", "SIGTERM", "SIGHUP")


class Signals:
    """While it is open, the first SIGINT, SIGTERM or SIGHUP only sets `number`; later ones act as they did before.

    Signals that are ignored (as under nohup) stay ignored. Does nothing outside the main thread, where Python delivers
    no signals.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in _ASK_TO_STOP:
                self._watch(name)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _watch(self, name: str) -> None:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
            self._before[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())


CHECK_EVERY = 32  # updates between looks at a GPU; a CPU is looked at after every update
ENTRIES = 500  # entries in metrics.jsonl
MEASURED = 1024  # held-out rows that are measured
PATH_LOSS_ROWS = 256  # held-out rows of which the path loss is measured
LEVEL_BINS = 8  # noise levels at which the held-out loss is reported
_ASKED = 256  # what no signal's number is: the caller asked to stop


def train(experiment: Experiment | Recipe, out: Path | str, *, progress: bool = True, data: Dataset | None = None,
          stop: Callable[[int], bool] | None = None, peer_timeout: float = PEER_TIMEOUT, track: Sequence[str] = (),
          preview: int = 0) -> Denoiser:
    """Trains, or continues the training in the folder `out`, and returns the model with the averaged weights.

    Of a recipe the data are those that it has opened; `data` take the place of what the experiment names.
    `stop(step)` is asked after every update; if it says
    True the state is saved and the model returned as it is. With the experiment's patience it may end sooner, and the
    model is that of the best save. SIGINT, SIGTERM and SIGHUP save and exit with 128 + n.
    Under torchrun the processes train together, and the first one writes; one that is stuck for `peer_timeout`
    seconds is given up. `track` names trackers that hear of the metrics; of images so many samples as `preview` says
    are drawn at every save, into previews/STEP.png. Raises InputError for another run or other data in `out`, and
    before an update that is not finite; MachineError for a full disk, a folder in use, or a process that is lost. The
    last good checkpoint always remains.
    """
    recipe = experiment if isinstance(experiment, Recipe) else Recipe(experiment, data=data)
    experiment = recipe.experiment
    whole = recipe.data or load_dataset(experiment)
    rows, held, numbers = split_held_out(whole, experiment.held_out)
    device, folder = pick_device(experiment.device), Path(out)
    with process_group(device, experiment.deterministic_reduction, peer_timeout) as team, ExitStack() as opened:
        team.share(lambda: _check(team, experiment, held))
        run = Run(folder, experiment, team.share(lambda: open_or_create(folder, recipe, whole, rows).config))
        model = initialized(run.config, experiment.seed, rows).to(device)
        state = State(experiment, model)
        choice = configure(model, experiment, run.config.get("precision", "fp32"))
        feed = Feed(experiment, rows, model)
        batch_losses(
            feed, feed.at(0, torch.zeros(1, dtype=torch.int64))
        )  # what cannot run fails before anything is written
        signals = opened.enter_context(Signals())
        seconds = _start(team, run, state, opened)
        log = _log(run, state.step, track, opened) if team.leads else None
        if progress and team.leads and "auto" in (experiment.precision, experiment.compile):
            say(choice)
        bar = opened.enter_context(Progress(state.step, experiment.steps, progress and team.leads))
        training = _Training(team, run, state, feed, held, numbers, log, bar, seconds, preview)
        ending = training.update(lambda step: _ASKED * bool(stop and stop(step)) or signals.number)
        if experiment.patience and not ending:
            training.go_back()
    if ending % _ASKED:
        if team.leads:
            say(f"stopped by signal {ending} at step {state.step}; `{_resume_command(run)}` continues")
        raise SystemExit(128 + ending)
    state.average.folder = folder
    return state.average


def _check(team: ProcessGroup, experiment: Experiment, held: Dataset | None) -> None:
    """InputError for what does not go together."""
    team.check(experiment.batch_size)
    if experiment.patience and held is None:
        raise InputError(f"got patience={experiment.patience} without held-out rows to measure on; give held_out above "
                         "0, or patience=0")


def _start(team: ProcessGroup, run: Run, state: State, opened: ExitStack) -> float:
    """Brings the states of all processes to where the run stands, under its lock; the seconds trained so far."""
    def first() -> list[float]:
        run.folder.mkdir(parents=True, exist_ok=True)
        opened.enter_context(locked(run.folder))
        return [resume(run, state, machine(state, team.size)), state.step]

    seconds, step = team.share(first)
    team.spread(state.tensors().values())
    state.stand(int(step))
    return float(seconds)


def _log(run: Run, step: int, track: Sequence[str], opened: ExitStack) -> Log:
    """The metrics, open for adding, and the trackers that hear of them."""
    listeners = opened.enter_context(tracked(track, run.folder, run.experiment.to_dict()))
    return opened.enter_context(Log(run.folder, step, listeners))


def draw_preview(run: Run, model: Denoiser, step: int, n: int) -> None:
    """The first samples of seed 0 as a picture, previews/STEP.png; where there are classes, of each in turn."""
    folder = run.folder / "previews"
    cond: dict[str, Any] = {"label": torch.arange(n) % model.classes} if model.classes else {}
    folder.mkdir(exist_ok=True)
    save_samples(folder / f"{step}.png", sample(model, n, **cond).x, levels=run.config["data"]["levels"])


class _Training:
    """One run in progress."""

    def __init__(self, team: ProcessGroup, run: Run, state: State, feed: Feed, held: Dataset | None, numbers: Tensor,
                 log: Log | None, bar: Progress, seconds: float, preview: int = 0) -> None:
        self.team, self.run, self.state, self.feed, self.log, self.bar, self.numbers = (
            team, run, state, feed, log, bar, numbers)
        self.preview = preview if run.config["data"]["kind"] == "image" else 0
        self.steps, self.save_every = run.experiment.steps, run.experiment.save_every
        self.held = Feed(run.experiment, held, state.model) if held is not None else None
        self.log_every = max(1, self.steps // ENTRIES)
        self.look_every = 1 if state.model.device.type == "cpu" else CHECK_EVERY
        self.start = time.monotonic() - seconds
        self.logged = (state.step, time.monotonic())
        self.loss, self.rate = float("nan"), 0.0

    def update(self, stop: Callable[[int], int]) -> int:
        """All the updates that are left, unless a process is told to stop: by what number, or 0."""
        state, wanted, ending, done = self.state, 0, 0, self.settle()
        while state.step < self.steps and not ending and not done:
            state.update(self.team.total(self._slope, self.run.experiment.batch_size))
            wanted = wanted or stop(state.step)
            if self.team.size == 1 or self._due(self.look_every):
                ending = self.team.agree(wanted, state.model.device)
            log = self._due(self.log_every) or state.step == 1
            save = self._due(self.save_every) or ending > 0
            if log or save or self._due(self.look_every):
                self.look()
            if log:
                self.note()
            if save:
                self.save()
                done = self.settle()
        return ending

    def _slope(self, first: int, end: int) -> Tensor:
        """What some slots of the batch add to the slope of its mean loss."""
        return batch_gradient(self.state, self.feed, first, end)

    def _due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self.steps

    def look(self) -> None:
        """Waits for the device; the updates must all have been made."""
        if int(self.state.made) < self.state.step:
            raise self.team.voice(explain(self.state, self.feed, self.numbers, self._advice()))
        self.bar.update(self.state.step, self.loss, self.rate)

    def note(self) -> None:
        """Adds the means since the last entry to the metrics."""
        (before, then), now = self.logged, time.monotonic()
        step = self.state.step
        updates, loss, norm = self.state.meter.tolist()
        self.loss, norm = loss / updates, norm / updates
        self.rate = (step - before) * self.run.experiment.batch_size / max(now - then, 1e-9)
        if self.log is not None:
            self.log.write(step=step, loss=self.loss, lr=learning_rate(self.run.experiment, step - 1), grad_norm=norm,
                           rate=round(self.rate, 1), seconds=round(now - self.start, 3))
        self.state.meter.zero_()
        self.logged = (step, now)

    def save(self) -> None:
        """The first process measures on the held-out rows where that is due, and saves; the others wait."""
        if self.team.agree(int(not self.state.finite()), self.state.model.device):
            raise self.team.voice(InputError(f"the weights are not finite after step {self.state.step}; "
                                             f"{self._advice()}"))
        step, average = self.state.step, self.state.average
        if self.log is not None:
            if self.held is not None and self._due(self.save_every):
                self.held.model = average
                self.log.write(step=step, **held_out_loss(self.held, self.steps),
                               path=path_loss(self.held, self.steps))
            self.log.sync()
            self.run.save(self.state, time.monotonic() - self.start, machine(self.state, self.team.size))
            if self.preview:
                draw_preview(self.run, average, step, self.preview)
        self.team.wait()

    def settle(self) -> bool:
        """With patience: keeps the state that has just been measured as the best, and tells whether to end."""
        patience, done = self.run.experiment.patience, False
        if not patience:
            return False
        if self.log is not None:
            entries = self.run.metrics()
            found, done = best_checkpoint(entries), should_stop(entries, patience)
            if found is not None and found[0] == self.state.step:
                self.run.keep(self.state)
        return bool(self.team.agree(int(done), self.state.model.device))

    def go_back(self) -> None:
        """Brings all processes to the best state, and says why the training has ended."""
        state = self.state

        def first() -> int:
            found = self.run.checkpoint(state.model, best=True)
            if found is not None:
                state.restore(found.step, found.tensors)
            say(stopping_summary(self.run.metrics(), self.run.experiment))
            return state.step

        step = self.team.share(first)
        self.team.spread(state.tensors().values())
        state.stand(int(step))

    def _advice(self) -> str:
        last = max(checkpoint.steps(self.run.folder), default=0)
        return ("correct the data or start a new run with a lower lr; "
                f"`{_resume_command(self.run)}` would repeat it from the checkpoint of step {last}")


@torch.no_grad()
def held_out_loss(feed: Feed, step: int, most: int = MEASURED) -> dict[str, Any]:
    """The loss on at most `most` rows, with levels and noise of a step that is never trained, the one after the last.

    `held_out` is the mean; `levels` are pairs (mean log σ/α, mean loss) of eight bands of equal weight.
    """
    rows = torch.arange(min(len(feed.x), most))
    whole = feed.at(step, rows)
    values = torch.cat([batch_losses(feed, block) for block in whole.blocks(feed.model.block)]).double().cpu()
    log_sigma = -feed.model.sde.log_snr(whole.t)
    bands = [(float(a.mean()), float(b.mean())) for a, b in
             zip(log_sigma.tensor_split(LEVEL_BINS), values.tensor_split(LEVEL_BINS), strict=True) if len(a)]
    return {"held_out": float(values.mean()), "levels": bands}


def path_loss(feed: Feed, step: int) -> float:
    """The path loss ∫ e^{2λ} E‖D − x_0‖² dλ/d on at most 256 rows, in nats an entry, whatever the run's own loss is.

    It is what the bound of the likelihood integrates, so runs of different weightings and levels can be compared by it;
    the excess over its value for the exact denoiser is the path-KL.
    Reference: Song et al. (2021), theorem 1. arXiv:2101.09258; Kingma et al. (2021), eq. 12. arXiv:2107.00630
    """
    path = copy(feed)
    path.experiment = feed.experiment.replace(weighting="likelihood")
    path.levels = NoiseLevelDistribution("importance", sigma_data=feed.model.sigma_data)
    return float(held_out_loss(path, step, PATH_LOSS_ROWS)["held_out"])


def _resume_command(run: Run) -> str:
    """The command that continues a run."""
    return shlex.join(["undiffuse", "train", str(run.folder)])
