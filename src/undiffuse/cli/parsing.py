"""Values from the text of flags: indices, labels, conditions and guidance scales."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from undiffuse.errors import InputError, did_you_mean
from undiffuse.launcher import is_first

_RANGE = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?", re.ASCII)


def index_ranges(text: str) -> list[tuple[int, int]]:
    """Pairs (first index, count) of a list such as "7,9000,20-29"; InputError for anything else."""
    return [(first, last - first + 1) for first, last in _ranges(text, "indices")]


def budgets_of(text: str) -> list[int]:
    """Numbers of model evaluations in a list such as "4-6,10"; InputError for anything else."""
    return [n for first, last in _ranges(text, "evaluations") for n in range(first, min(last, first + 100) + 1)]


def labels_of(text: str, classes: Sequence[str]) -> list[int]:
    """The class numbers of "cat", "0,3,5-7" or "all"; InputError if the model has no such class.

    Sample i gets number i modulo their count, so that its label does not depend on the other samples.
    """
    if not classes:
        raise InputError(f"got --label {text[:60]} for a model that was trained without labels; leave --label out")
    if text in classes:
        return [classes.index(text)]
    return [_number(name, classes) for name in (classes if text == "all" else _names(text))]


def parse_conditions(texts: Sequence[str] | None, names: Sequence[str]) -> dict[str, Any]:
    """The values of conditions in the form NAME=VALUE; InputError for another form or an unknown name."""
    pairs = [text.partition("=") for text in texts or ()]
    for name, equals, value in pairs:
        if not equals or not value:
            raise InputError(f'got --condition "{name[:60]}"; expected NAME=VALUE')
        if name not in names:
            raise InputError(f'got the condition "{name[:60]}"; expected one that this model was trained with: '
                             f"{', '.join(names) or 'none'}{did_you_mean(name, names)}")
    return {name: value for name, _, value in pairs}


def scale_of(texts: Sequence[str] | None) -> float | dict[str, float]:
    """The guidance scale, or one per condition, of "2" or "age=2", "sex=1.5"; 1 by default."""
    pairs = [text.rpartition("=") for text in texts or ()]
    try:
        scales = {name: float(value) for name, _, value in pairs}
    except ValueError:
        raise InputError(f"got --guidance-scale {' '.join(texts or ())[:60]}; expected a number, or NAME=NUMBER for "
                         "conditions") from None
    if "" in scales and len(pairs) > 1:
        raise InputError("got --guidance-scale twice; expected one number, or NAME=NUMBER per condition")
    return scales.get("", 1.0) if "" in scales or not scales else scales


def scales_of(text: str | None, per_class: bool) -> list[float]:
    """The guidance scales of "1,2,4"; empty without a text. InputError for anything else, or with `per_class`."""
    if per_class and text is not None:
        raise InputError("got --per-class and --guidance-scale; use one of them at a time")
    if text is None:
        return []
    try:
        scales = [float(word) for word in text.split(",")]
    except ValueError:
        scales = []
    if len(set(scales)) < 2 or not all(map(math.isfinite, scales)):
        raise InputError(f"got --guidance-scale {text[:60]}; expected two numbers or more, such as 1,2,4")
    return scales


def guided(model: Any, scale: float | dict[str, float], names: Sequence[str], prompt: Sequence[str] | None,
           negative: str | None) -> Any:
    """The model with guidance.

    Args:
        model: the model.
        scale: guidance scale, one number or one by condition.
        names: names of the conditions.
        prompt: the prompts, if any.
        negative: text that guidance moves away from.

    Raises:
        InputError: for prompts of a model that takes none, and a negative text without guidance.
    """
    from undiffuse import guidance

    if (prompt or negative) and "prompt" not in [c.name for c in model.conditions]:
        raise InputError("got --prompt or --negative for a model that takes no text; leave them out")
    if negative is None:
        return guidance.with_guidance(model, scale, names)
    if isinstance(scale, dict) or scale == 1 or not prompt:
        raise InputError("got --negative without --prompt and one --guidance-scale above 1; add them")
    return guidance.classifier_free(model, scale, negative={"prompt": negative})


def report_sampler(model: Any, method: str, steps: int, cond: Sequence[str]) -> None:
    """Prints which tuned sampler is used under guidance, or that none fits these conditions."""
    from undiffuse.progress import say
    from undiffuse.samplers.tuned import find_tuned, tuning_of

    tuning = tuning_of(model)
    scale = tuning.scale_text if tuning else ""
    if method not in ("auto", "tuned") or not is_first():
        return
    if not scale:
        _report_other_tuning(model, tuning, method, steps, cond)
        return
    if choice := find_tuned(model, steps, (None, None), dict.fromkeys(cond)):
        say(f"the sampler is tuned to this model for {choice.tuned_for}")
    elif method == "auto":
        say(f"no sampler is tuned for {steps} steps{scale}; the untuned one is used")


def _report_other_tuning(model: Any, tuning: Any, method: str, steps: int, cond: Sequence[str]) -> None:
    """Prints that the model is tuned for other conditions, or without this guidance."""
    from undiffuse.model import Wrapper
    from undiffuse.progress import say

    if tuning is not None:
        table = {name: samplers for name, samplers in tuning.table.items() if steps in samplers}
        if method == "auto" and table and ",".join(sorted(cond)) not in table:
            names = " and ".join(name or "none" for name in table)
            say(f"the sampler for {steps} steps is tuned to the conditions {names}; the untuned one is used")
        return
    while isinstance(model, Wrapper):
        model = model.inner
        if getattr(model, "tuning", None) is not None:
            say("no sampler is tuned to this guidance (undiffuse tune --guidance-scale); the untuned one is used")
            return


def lines_of(file: Path | None, before: Sequence[str] | None) -> list[str]:
    """The texts `before`, then the lines of a file that are not empty; raises InputError for a file without any."""
    if file is None:
        return list(before or ())
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {file}: {error}") from None
    if not lines:
        raise InputError(f"got {file}, which is empty; expected one text a line")
    return [*(before or ()), *lines]


def print_once(text: object) -> None:
    """Prints on the first of several processes."""
    if is_first():
        print(text)


def say_once(sentence: str) -> None:
    """Prints a sentence on stderr, on the first process only; nothing for ""."""
    from undiffuse.progress import say

    if sentence and is_first():
        say(sentence)


def condition_texts(texts: Sequence[str] | None, conditions: Sequence[Any]) -> dict[str, Any]:
    """The values of a model's conditions; prints which numbers are over four standard deviations from their mean."""
    values = parse_conditions(texts, [condition.name for condition in conditions])
    for condition in conditions:
        if condition.kind == "number" and condition.mean and condition.name in values:
            value, mean, std = float(condition.rows(values[condition.name], 1)), condition.mean[0], condition.std[0]
            if abs(value - mean) > 4 * std:
                say_once(f"{condition.name}={values[condition.name]} is far from the training rows (mean {mean:.4g}, "
                         f"standard deviation {std:.3g}); the samples are an extrapolation")
    return values


def cycle_labels(labels: Sequence[int], first: int, count: int) -> list[int]:
    """The labels of the samples `first` to `first + count - 1`."""
    return [labels[index % len(labels)] for index in range(first, first + count)]


def cycle_prompts(prompts: Sequence[str] | None, first: int, count: int) -> dict[str, Any]:
    """The condition `prompt` of the samples `first` to `first + count - 1`; empty without prompts."""
    if not prompts:
        return {}
    return {"prompt": [prompts[index % len(prompts)] for index in range(first, first + count)]}


def _names(text: str) -> Iterator[str]:
    """The names of a list, with ranges of numbers expanded."""
    for part in (name.strip() for name in text.split(",")):
        if _RANGE.fullmatch(part):
            yield from (str(number) for first, last in _ranges(part, "labels") for number in range(first, last + 1))
        else:
            yield part


def _number(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        names = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        raise InputError(f'got label "{name[:60]}"; expected {names} or all{did_you_mean(name, classes)}')
    return classes.index(name)


def _ranges(text: str, what: str) -> list[tuple[int, int]]:
    matches = [_RANGE.fullmatch(part.strip()) for part in text.split(",")]
    pairs = [(int(m[1]), int(m[2] or m[1])) for m in matches if m]
    if len(pairs) < len(matches) or any(first > last for first, last in pairs):
        raise InputError(f'got {what} "{text[:60]}"; expected numbers or ranges such as 7,20-29')
    return pairs
