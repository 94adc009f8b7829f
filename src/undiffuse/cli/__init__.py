"""The command `undiffuse`: each command is one public function of the same name.

parsing, options: values and settings from the command line
train, show, ema, replay: runs; import_, export, compare: pretrained models
sample, restore, impute, forecast, likelihood, tune: models
report, evaluate, check, verify, learn, explore: pages, checks and the course

No module imports torch before a command runs, so that `--help` answers at once. Exit codes: 0 success, 1 failure of the
machine (or of a check of `verify`), 2 wrong input, 70 a bug, 128 + n stopped by signal n (141: the reader of the output
exited).
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

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, convert

from undiffuse.cli.check import check
from undiffuse.cli.compare import compare
from undiffuse.cli.ema import ema
from undiffuse.cli.evaluate import evaluate
from undiffuse.cli.explore import explore
from undiffuse.cli.export import export
from undiffuse.cli.forecast import forecast
from undiffuse.cli.import_ import import_
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
from undiffuse.errors import InputError, MachineError, quote

_LONGEST = 300  # characters of a word in an error message
COMMANDS: tuple[Callable[..., int | None], ...] = (train, sample, restore, impute, forecast, tune, ema, replay, report,
                                                   show, evaluate, likelihood, check, import_, export, compare, verify,
                                                   learn, explore)


def converted(kind: Any, tokens: Any) -> Any:
    """The value of a flag as cyclopts reads it, except for integers, whose fractions it would round."""
    return integer(tokens[0].value) if kind in (int, int | None) else convert(kind, tokens)


def integer(text: str) -> int:
    """The integer in a text, also in the form 1e3 or 30.0; InputError for any other text."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number.is_integer() or abs(number) >= 1 << 53:  # larger floats are not exact
        raise InputError(f"got {text[:60]}; expected a whole number")
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
    os.environ["MPLBACKEND"] = "agg"  # figures are files; another value may not even be imported
    return guarded(lambda: app(sys.argv[1:] if argv is None else argv, exit_on_error=False, print_error=False))


def guarded(work: Callable[[], object]) -> int:
    """The exit code of `work`; every failure becomes one line on stderr."""
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        exit_code = work()
        if sys.stdout is not None:
            sys.stdout.flush()
        return exit_code if isinstance(exit_code, int) else 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except CycloptsError as error:
        command = " ".join(("undiffuse", *(error.command_chain or ())))
        return _report(f"{_usage(error, command)} ({command} --help lists the options)", 2)
    except InputError as error:
        return _report(error, 2)
    except (MachineError, OSError, MemoryError) as error:
        return _report(_file_problem(error) or str(error) or "the machine is out of memory", 1)
    except KeyboardInterrupt:
        return _report("interrupted", 130)
    except SystemExit as error:  # a training that was stopped has saved and printed it
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:
        return _report(f"this is a bug ({type(error).__name__}); {_traceback_place()}", 70)


def _usage(error: CycloptsError, command: str) -> str:
    """What is wrong with a command line."""
    if not isinstance(error, MissingArgumentError) or error.argument is None:
        return str(error)
    name = error.keyword or error.argument.name
    if name.startswith("-"):
        return f"got no value for {name}; expected {command} {name} VALUE"
    return f"got no {name}; expected {command} {name}"


def _file_problem(error: Exception) -> str:
    """The line for an error of the operating system that names a file; empty for others."""
    if not isinstance(error, OSError) or not error.filename or not error.strerror:
        return ""
    return f"got {quote(error.filename)}: {error.strerror}; expected a path that this machine can use; choose another"


def _report(message: object, exit_code: int) -> int:
    if sys.stderr is not None:  # None would print on stdout
        words = (word if len(word) <= _LONGEST else f"{word[:60]} ... {word[-20:]}" for word in str(message).split())
        print("undiffuse:", " ".join(words), file=sys.stderr)
    return exit_code


def _traceback_place() -> str:
    """Writes the traceback of the current exception to a new file, or to stderr if that fails; where it is."""
    text = traceback.format_exc()
    try:
        with tempfile.NamedTemporaryFile("w", prefix="undiffuse-", suffix=".txt", delete=False, encoding="utf-8",
                                         errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        print(text, file=sys.stderr)
        return "the details are above"
    return f"the details are in {file.name}"
