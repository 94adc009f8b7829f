"""The command `undiffuse`: every command is one public function with the same words.

Nothing here imports torch before a command runs, so that `--help` answers at once. Exit codes: 0 done, 1 the machine
lacks something (or `verify` found a fault), 2 the input is wrong, 70 a bug, 128 + n stopped by
signal n (141: the reader went away).
"""

from __future__ import annotations

import io
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from cyclopts import App, CycloptsError, Parameter, convert

from undiffuse.cli.ema import ema
from undiffuse.cli.evaluate import evaluate
from undiffuse.cli.explore import explore
from undiffuse.cli.impute import impute
from undiffuse.cli.learn import learn
from undiffuse.cli.likelihood import likelihood
from undiffuse.cli.replay import replay
from undiffuse.cli.report import report
from undiffuse.cli.restore import restore
from undiffuse.cli.sample import sample
from undiffuse.cli.show import show
from undiffuse.cli.train import train
from undiffuse.cli.tune import tune
from undiffuse.cli.verify import verify
from undiffuse.errors import InputError, MachineError

COMMANDS: tuple[Callable[..., int | None], ...] = (train, sample, restore, impute, tune, ema, replay, report, show,
                                                evaluate, likelihood, verify, learn, explore)


def converted(kind: Any, tokens: Any) -> Any:
    """The value of a flag as cyclopts reads it, but for whole numbers, whose fractions it would round."""
    return whole(tokens[0].value) if kind in (int, int | None) else convert(kind, tokens)


def whole(text: str) -> int:
    """The whole number that a text is, also as 1e3 or 30.0; InputError for any other."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number.is_integer() or abs(number) >= 1 << 53:  # beyond, a float is not the number that was written
        raise InputError(f"got {text[:60]}, expected a whole number")
    return int(number)


app = App(
    name="undiffuse",
    help="Learn p(x) once; then sample it, measure it, condition it, invert it.",
    version=lambda: version("undiffuse"),
    help_format="plaintext",
    default_parameter=Parameter(negative_iterable=(), converter=converted),
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
for _place, _command in enumerate(COMMANDS):
    app.command(_command, sort_key=_place)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: runs `argv` (without the program's name) and returns the exit code."""
    return guarded(lambda: app(sys.argv[1:] if argv is None else argv, exit_on_error=False, print_error=False))


def guarded(work: Callable[[], object]) -> int:
    """The exit code of `work`: every failure becomes one line on stderr."""
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        code = work()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except CycloptsError as error:
        command = " ".join(("undiffuse", *(error.command_chain or ())))
        return _complain(f"{error} ({command} --help lists what there is)", 2)
    except InputError as error:
        return _complain(error, 2)
    except (MachineError, OSError, MemoryError) as error:
        return _complain(str(error) or "the machine has not enough memory", 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except SystemExit as error:  # a training that was asked to stop has saved and said so
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:
        return _complain(f"this is a bug ({type(error).__name__}); {_traceback_place()}", 70)


def _complain(message: object, code: int) -> int:
    print("undiffuse:", " ".join(str(message).split()), file=sys.stderr)
    return code


def _traceback_place() -> str:
    """Where the traceback of the current exception has been written: a new file, or stderr if there can be none."""
    text = traceback.format_exc()
    try:
        with tempfile.NamedTemporaryFile("w", prefix="undiffuse-", suffix=".txt", delete=False, encoding="utf-8",
                                         errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        print(text, file=sys.stderr)
        return "the details are above"
    return f"the details are in {file.name}"
