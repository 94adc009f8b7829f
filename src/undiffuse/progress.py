"""What a person sees while work is done: a bar on a terminal, a plain line now and then elsewhere for a training."""

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

QUIET_SECONDS = 15.0
Told = Callable[[float, float | None], None]


def say(sentence: str) -> None:
    """One line on stderr."""
    print(f"undiffuse: {sentence}", file=sys.stderr)


def on_terminal() -> bool:
    """Whether stderr is a terminal."""
    return bool(sys.stderr and sys.stderr.isatty())


@contextmanager
def bar(doing: str, shown: bool = True) -> Iterator[Told]:
    """A transient bar, on a terminal only; yields `update(done, total)`, total None where it is not known."""
    with Bar(console=Console(stderr=True), transient=True, disable=not (shown and on_terminal())) as drawn:
        task = drawn.add_task(doing, total=None)
        yield lambda done, total: drawn.update(task, completed=done, total=total)


def part(told: Told, k: int, of: int) -> Told:
    """The progress of sub-task k of `of` equal ones."""
    return lambda done, total: told(k + done / (total or 1), of)


class Progress:
    """The progress of a training from step `first` to `last`: a bar with loss, rate and time left on a terminal, else a
    line every 15 seconds and at the end; nothing unless `shown`."""

    def __init__(self, first: int, last: int, shown: bool) -> None:
        self.first, self.last, self.lines = first, last, shown and not on_terminal()
        self.start = self.spoken = time.monotonic()
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(),
                   TextColumn("{task.fields[figures]}"), TimeRemainingColumn())
        self.bar = Bar(*columns, console=Console(stderr=True), disable=self.lines or not shown)
        self.task = self.bar.add_task("training", total=last, completed=first, figures="no loss yet")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def update(self, step: int, loss: float, rate: float) -> None:
        """`step` updates are made; the latest loss, and rows per second."""
        figures, now = f"loss {loss:.4g}, {rate:.0f} rows/s" if math.isfinite(loss) else "no loss yet", time.monotonic()
        self.bar.update(self.task, completed=step, figures=figures)
        if self.lines and (now - self.spoken >= QUIET_SECONDS or step >= self.last):
            self.spoken, left = now, (now - self.start) * (self.last - step) / max(1, step - self.first)
            say(f"step {step} of {self.last}, {figures}, {_clock(left)} left")


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
