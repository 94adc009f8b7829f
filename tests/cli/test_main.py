"""The command line: every failure is one line and one exit code, and nothing else leaves `main`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from undiffuse.cli import COMMANDS, guarded, main
from undiffuse.errors import InputError, MachineError

NAMES = [command.__name__.rstrip("_") for command in COMMANDS]


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on stderr; nothing may have been written to stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def raising(error: BaseException):
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize("error, code, line", [
    (InputError("got 0 rows,\n expected 2"), 2, "undiffuse: got 0 rows, expected 2"),
    (MachineError("the disk is full"), 1, "undiffuse: the disk is full"),
    (OSError(28, "No space left on device", "x"), 1, "undiffuse: got 'x': No space left on device; expected a path "
     "that this machine can use; choose another"),
    (MemoryError(), 1, "undiffuse: the machine is out of memory"),
    (KeyboardInterrupt(), 130, "undiffuse: interrupted"),
])
def test_a_failure_is_one_line_and_its_exit_code(error, code, line, capsys) -> None:
    assert guarded(raising(error)) == code
    assert lines(capsys) == [line]


def test_a_training_stopped_by_a_signal_has_its_exit_code(capsys) -> None:
    assert guarded(raising(SystemExit(143))) == 143
    assert lines(capsys) == []


def test_a_bug_leaves_its_traceback_in_a_file(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert guarded(raising(ZeroDivisionError("\ud800 here"))) == 70
    (line,) = lines(capsys)
    (file,) = tmp_path.iterdir()
    assert "this is a bug (ZeroDivisionError)" in line and line.endswith(str(file))
    assert file.read_text("utf-8").startswith("Traceback") and "in work\n" in file.read_text("utf-8")


def test_a_bug_on_a_full_disk_still_shows_its_traceback(capsys, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.NamedTemporaryFile", lambda *args, **kwargs: raising(OSError())())
    assert guarded(raising(ZeroDivisionError())) == 70
    found = lines(capsys)
    assert found[0].startswith("Traceback") and found[-1].endswith("the details are above")


@pytest.mark.parametrize("result, code", [(None, 0), (0, 0), (1, 1), ("text", 0)])
def test_success_is_zero_unless_the_command_says_otherwise(result, code) -> None:
    assert guarded(lambda: result) == code


@pytest.mark.parametrize("argv, words", [
    (["tran", "digits"], '"tran". Did you mean "train"?'),
    (["train", "digits", "--stepz", "3"], "--stepz. Did you mean --steps?"),
    (["train", "digits", "--steps", "many"], "--steps: got many; expected a whole number"),
    (["show", "digits", "--steps", "10.7"], "--steps: got 10.7; expected a whole number"),
    (["show", "digits", "--batch-size=2.5"], "--batch-size: got 2.5; expected a whole number"),
    (["show", "digits", "--seed", "1e99"], "--seed: got 1e99; expected a whole number"),
    (["train", "digits", "--lr", "much"], '--lr: unable to convert "much" into float'),
    (["sample", "run", "--n", "3.5"], "--n: got 3.5; expected a whole number"),
    (["sample", "run", "--steps=-inf"], "--steps: got -inf; expected a whole number"),
    (["train", "digits", "--steps"], "--steps"),
    (["train"], "got no DATA; expected undiffuse train DATA"),
    (["sample"], "RUN"),
    (["report", "a", "b"], "b"),
    (["evaluate", "--n", "3"], "--n"),
    (["show", "nowhere.json"], "nowhere.json: No such file"),
])
def test_wrong_usage_is_one_line_and_two(argv: list[str], words: str, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    (line,) = lines(capsys)
    assert line.startswith("undiffuse: ") and words in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text, steps", [("1000", 1000), ("1e3", 1000), ("1_000", 1000), ("1000.0", 1000)])
def test_an_integer_may_be_written_in_any_usual_form(text: str, steps: int, capsys) -> None:
    asked = ["--steps", text, "--seed", str(2**64 - 1), "--sde-args.beta-max", "7.5"]
    assert main(["show", "moons", "--json", *asked]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["steps"] == steps and said["seed"] == 2**64 - 1 and said["sde_args"] == {"beta_max": 7.5}


WORDS = [*NAMES, "--steps", "--n", "--out", "--sde-args.x", "--sde-args", "--label", "--", "-", "--=", "-1", "1e999",
         "x.json", "--json", "--no-json", "{}", "[", "--seed=", "--lr=nan"]
TOKENS = st.sampled_from(WORDS) | st.text(max_size=6)


@given(st.lists(TOKENS, max_size=5))
@example(["--", "show"])
@example(["\ud800"])
@pytest.mark.slow
def test_no_input_of_show_fails_without_an_input_error(tokens: list[str]) -> None:
    assert main(["show", "missing.json", *tokens]) in (0, 2)  # 0: --help or --version was among them


@pytest.mark.parametrize("name", NAMES)
def test_help_describes_the_command_and_each_of_its_flags(name: str, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"undiffuse {name}" in text
    described = re.findall(r"^│ (?:\*  |   )?((?:--[\w-]+|[A-Z]+)(?: \S+)*?) {2,}(\S.*)│$", text, re.MULTILINE)
    assert len(described) == len(re.findall(r"^│ (?:\*  |   )?(?:--[a-z]|[A-Z]+ )", text, re.MULTILINE)) > 0


def test_python_m_is_the_same_command() -> None:
    command = [sys.executable, "-m", "undiffuse", "tran"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Did you mean" in done.stderr


def test_a_closed_pipe_is_not_an_error() -> None:
    code = "from undiffuse.cli import guarded; import sys; sys.exit(guarded(lambda: print('x' * 10_000_000)))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_terminal_without_the_letters_is_served_without_them() -> None:
    code = "from undiffuse.cli import guarded; import sys; sys.exit(guarded(lambda: print('σ = 1')))"
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=ascii_only, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"? = 1\n", b"")
