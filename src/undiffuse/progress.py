"""Progress on stderr: a bar on a terminal; elsewhere, for a training, a line now and then."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINE_SECONDS = 15.0
ProgressFn = Callable[[float, float | None], None]


def say(sentence: str) -> None:
    """One line on stderr."""
    print(f"undiffuse: {sentence}", file=sys.stderr)


def on_terminal() -> bool:
    """Whether stderr is a terminal."""
    return bool(sys.stderr and sys.stderr.isatty())


@contextmanager
def bar(text: str, visible: bool = True) -> Iterator[ProgressFn]:
    """A transient bar, on a terminal only; yields `update(done, total)`, with total None if unknown."""
    with Bar(console=Console(stderr=True), transient=True, disable=not (visible and on_terminal())) as display:
        task = display.add_task(text, total=None)
        yield lambda done, total: display.update(task, completed=done, total=total)


def part(update: ProgressFn, k: int, of: int) -> ProgressFn:
    """The progress function of one of several equal sub-tasks.

    Args:
        update: the progress function of the whole, called with (done, total).
        k: number of the sub-task, from 0.
        of: number of sub-tasks.
    """
    return lambda done, total: update(k + done / (total or 1), of)


class Progress:
    """The progress of a training: a bar with loss, rate and remaining time on a terminal, else a line every 15 seconds
    and at the end.

    Args:
        first: Step at which the training starts or resumes.
        last: Last step.
        visible: Whether anything is shown.
    """

    def __init__(self, first: int, last: int, visible: bool) -> None:
        self.first, self.last, self.lines = first, last, visible and not on_terminal()
        self.start = self.last_line = time.monotonic()
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(),
                   TextColumn("{task.fields[figures]}"), TimeRemainingColumn())
        self.bar = Bar(*columns, console=Console(stderr=True), disable=self.lines or not visible)
        self.task = self.bar.add_task("training", total=last, completed=first, figures="no loss yet")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def update(self, step: int, loss: float, rate: float) -> None:
        """Show the state of a training run.

        Args:
            step: number of updates made.
            loss: the latest loss; not finite: none yet.
            rate: training rows per second.
        """
        figures, now = f"loss {loss:.4g}, {rate:.0f} rows/s" if math.isfinite(loss) else "no loss yet", time.monotonic()
        self.bar.update(self.task, completed=step, figures=figures)
        if self.lines and (now - self.last_line >= LINE_SECONDS or step >= self.last):
            self.last_line, left = now, (now - self.start) * (self.last - step) / max(1, step - self.first)
            say(f"step {step} of {self.last}, {figures}, {_clock(left)} left")


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{math.floor(minutes / 60)} h {minutes % 60:.0f} min"


def _clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
