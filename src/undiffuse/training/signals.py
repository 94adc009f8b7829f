"""Signals: the first one asks a training to save and stop, the second one stops it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

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
