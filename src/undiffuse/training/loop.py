"""The training loop: there is one.

State and randomness are apart: what changes is in `State`, what an update is made from is a function of its number.
A run that was interrupted at any moment therefore ends with the same weights, bit for bit.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from undiffuse.data import Dataset
from undiffuse.errors import InputError
from undiffuse.experiment import Experiment
from undiffuse.model import Denoiser
from undiffuse.nets import initialize
from undiffuse.training import checkpoint
from undiffuse.training.build import moments_of, pick_device, rebuild
from undiffuse.training.faults import explain, losses
from undiffuse.training.feed import Feed
from undiffuse.training.files import locked
from undiffuse.training.log import Log
from undiffuse.training.optim import learning_rate
from undiffuse.training.progress import Progress, say, watch
from undiffuse.training.run import Run, begin, divide, plan, source
from undiffuse.training.signals import Signals
from undiffuse.training.state import State

LOOKS = 32  # updates between looks at a GPU; a CPU is looked at after every update
ENTRIES = 500  # entries in metrics.jsonl
MEASURED = 1024  # held-out rows that are measured
BANDS = 8  # noise levels at which the held-out loss is reported


def train(experiment: Experiment, out: Path | str, *, progress: bool = True, data: Dataset | None = None,
          stop: Callable[[int], bool] | None = None) -> Denoiser:
    """Trains, or continues the training in the folder `out`, and returns the model with the averaged weights.

    `data` in memory take the place of what the experiment names. `stop(step)` is asked after every update; if it says
    True the state is saved and the model returned as it is. SIGINT, SIGTERM and SIGHUP save and exit with 128 + n.
    Raises InputError for another run or other data in `out`, and before an update that is not finite; MachineError
    for a full disk or a folder in use. The last good checkpoint always remains.
    """
    whole = source(experiment) if data is None else data
    rows, held, numbers = divide(whole, experiment.held_out)
    run = plan(Path(out), experiment, whole, rows)
    model = rebuild(run.config)
    initialize(model.net, experiment.seed)
    model.moments = moments_of(rows, model)
    state = State(experiment, model.to(pick_device(experiment.device)))
    feed = Feed(experiment, rows, model)
    losses(feed, feed.at(0, torch.zeros(1, dtype=torch.int64)))  # what cannot run fails before anything is written
    run.folder.mkdir(parents=True, exist_ok=True)
    with locked(run.folder), Signals() as signals:
        seconds = begin(run, state)
        with Log(run.folder, state.step) as log, watch(state.step, experiment.steps, progress) as bar:
            training = _Training(run, state, feed, held, numbers, log, bar, seconds)
            training.update(lambda step: bool(stop and stop(step)) or signals.number > 0)
    if signals.number:
        say(f"stopped by signal {signals.number} at step {state.step}; `{_again(run)}` continues")
        raise SystemExit(128 + signals.number)
    return state.average


class _Training:
    """One run in progress."""

    def __init__(self, run: Run, state: State, feed: Feed, held: Dataset | None, numbers: Tensor, log: Log,
                 bar: Progress, seconds: float) -> None:
        self.run, self.state, self.feed, self.log, self.bar, self.numbers = run, state, feed, log, bar, numbers
        self.steps, self.save_every = run.experiment.steps, run.experiment.save_every
        self.held = Feed(run.experiment, held, state.average) if held is not None else None
        self.log_every = max(1, self.steps // ENTRIES)
        self.look_every = 1 if state.model.device.type == "cpu" else LOOKS
        self.start = time.monotonic() - seconds
        self.logged = (state.step, time.monotonic())
        self.loss, self.rate = float("nan"), 0.0

    def update(self, stop: Callable[[int], bool]) -> None:
        """All the updates that are left, unless told to stop."""
        state, ending = self.state, False
        while state.step < self.steps and not ending:
            state.update(losses(self.feed, self.feed.batch(state.step)).mean())
            ending = stop(state.step)
            log = self._due(self.log_every) or state.step == 1
            save = self._due(self.save_every) or ending
            if log or save or self._due(self.look_every):
                self.look()
            if log:
                self.note()
            if save:
                self.save()

    def _due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self.steps

    def look(self) -> None:
        """Waits for the device; the updates must all have been made."""
        if int(self.state.made) < self.state.step:
            raise explain(self.state, self.feed, self.numbers, self._advice())
        self.bar.update(self.state.step, self.loss, self.rate)

    def note(self) -> None:
        """Adds the means since the last entry to the metrics."""
        (before, then), now = self.logged, time.monotonic()
        step = self.state.step
        updates, loss, norm = self.state.meter.tolist()
        self.loss, norm = loss / updates, norm / updates
        self.rate = (step - before) * self.run.experiment.batch / max(now - then, 1e-9)
        self.log.write(step=step, loss=self.loss, lr=learning_rate(self.run.experiment, step - 1), grad_norm=norm,
                       rate=round(self.rate, 1), seconds=round(now - self.start, 3))
        self.state.meter.zero_()
        self.logged = (step, now)

    def save(self) -> None:
        """Measures on the held-out rows where that is due, and writes a checkpoint."""
        if not self.state.finite():
            raise InputError(f"the weights are not finite after step {self.state.step}; {self._advice()}")
        if self.held is not None and self._due(self.save_every):
            self.log.write(step=self.state.step, **held_out_loss(self.held, self.steps))
        self.log.sync()
        self.run.save(self.state, time.monotonic() - self.start)

    def _advice(self) -> str:
        last = checkpoint.steps(self.run.folder)[-1]
        return (f"correct the data or start a new run with a lower lr; `{_again(self.run)}` would repeat it from the "
                f"checkpoint of step {last}")


@torch.no_grad()
def held_out_loss(feed: Feed, step: int) -> dict[str, object]:
    """The loss on at most 1,024 rows with the levels and noise of a step that is never trained, the one after the last.

    `held_out` is the mean; `levels` are pairs (mean log σ/α, mean loss) of eight bands of equal weight.
    """
    rows = torch.arange(min(len(feed.x), MEASURED))
    whole = feed.at(step, rows)
    values = torch.cat([losses(feed, block) for block in whole.blocks(feed.model.block)]).double().cpu()
    log_sigma = -feed.model.sde.log_snr(whole.t)
    bands = [(float(a.mean()), float(b.mean())) for a, b in
             zip(log_sigma.tensor_split(BANDS), values.tensor_split(BANDS), strict=True) if len(a)]
    return {"held_out": float(values.mean()), "levels": bands}


def _again(run: Run) -> str:
    """The command that continues a run."""
    return shlex.join(["undiffuse", "train", str(run.folder)])
