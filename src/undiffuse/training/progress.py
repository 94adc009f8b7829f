"""What a person sees while a training runs: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

QUIET_SECONDS = 15.0
Told = Callable[[float, float], None]


def say(sentence: str) -> None:
    """One line on stderr."""
    print(f"undiffuse: {sentence}", file=sys.stderr)


@contextmanager
def bar(doing: str, shown: bool = True) -> Iterator[Told]:
    """A bar on a terminal that is gone afterwards; what it gives is told how much is done, of how much."""
    with Bar(console=Console(stderr=True), transient=True, disable=not (shown and sys.stderr.isatty())) as drawn:
        task = drawn.add_task(doing, total=None)
        yield lambda done, of: drawn.update(task, completed=done, total=of)


def part(told: Told, k: int, of: int) -> Told:
    """What is told of part number k of so many alike."""
    return lambda done, all: told(k + done / all, of)


class Progress(Protocol):
    """A context that hears of every step."""

    def __enter__(self) -> Self:
        """Opens it."""

    def __exit__(self, *error: object) -> None:
        """Closes it."""

    def update(self, step: int, loss: float, rate: float) -> None:
        """`step` updates are made; the latest loss, and rows per second."""


def watch(first: int, last: int, shown: bool) -> Progress:
    """The progress from step `first` to `last` that suits stderr; silent unless `shown`."""
    if not shown:
        return Silent()
    return Terminal(first, last) if sys.stderr.isatty() else Plain(first, last)


class Silent:
    """No progress."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, step: int, loss: float, rate: float) -> None:
        """Nothing."""


class Plain(Silent):
    """A line every 15 seconds and at the end, for files and pipes."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last, self.start = first, last, time.monotonic()
        self.spoken = self.start

    def update(self, step: int, loss: float, rate: float) -> None:
        """Prints a line if it is time."""
        now = time.monotonic()
        if now - self.spoken < QUIET_SECONDS and step < self.last:
            return
        self.spoken = now
        left = (now - self.start) * (self.last - step) / max(1, step - self.first)
        say(f"step {step} of {self.last}, {_figures(loss, rate)}, {_clock(left)} left")


class Terminal(Silent):
    """A bar with the loss, the rate and the time left."""

    def __init__(self, first: int, last: int) -> None:
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(),
                   TextColumn("{task.fields[figures]}"), TimeRemainingColumn())
        self.bar = Bar(*columns, console=Console(stderr=True))
        self.task = self.bar.add_task("training", total=last, completed=first, figures="no loss yet")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def update(self, step: int, loss: float, rate: float) -> None:
        """Moves the bar."""
        self.bar.update(self.task, completed=step, figures=_figures(loss, rate))


def _figures(loss: float, rate: float) -> str:
    """The loss and the rate, which the first updates have not been measured for."""
    return f"loss {loss:.4g}, {rate:.0f} rows/s" if math.isfinite(loss) else "no loss yet"


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
