"""What the numbers say, in sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from undiffuse.data import Dataset

NEAR = 0.9
"""The ratio of nearest-neighbour distances below which a model is said to copy."""
_COPIES = 0.05

_NOUNS = {"points": ("point", "points"), "table": ("row", "rows"), "image": ("image", "images")}


@dataclass(frozen=True)
class Verdict:
    """The headline, the sentences below it, and a warning or nothing."""

    title: str
    deck: str
    warning: str = ""


def nouns(data: Dataset) -> tuple[str, str]:
    """What one sample and several are called."""
    digits = data.kind == "image" and data.name.lower() in ("digits", "mnist")
    return ("digit", "digits") if digits else _NOUNS[data.kind]


def percent(share: float) -> str:
    """A share as "98.3 %"."""
    return f"{100 * share:.1f}\u00a0%"


def short(value: float | None) -> str:
    """A number with three significant digits, 0 if it is next to nothing; a dash where there is none."""
    if value is None or abs(value) < 1e-6:
        return "–" if value is None else "0"
    return f"{value:.3g}".replace("-", "−")


def spread(value: float, error: float) -> str:
    """A value ± its spread, both to the decimals that the spread allows."""
    places = max(0, -math.floor(math.log10(error / 3))) if error > 0 else 3
    return f"{value:.{places}f}\u00a0±\u00a0{error:.{places}f}".replace("-", "−")


def verdict(numbers: dict[str, Any], data: Dataset) -> Verdict:
    """What the page says first."""
    several = nouns(data)[1]
    asked, compared = numbers.get("class_agreement") is not None, numbers["ratio"] is not None
    if asked:
        first = _judge(numbers, several)
    else:
        first = _distance(numbers, several) if compared else _nothing_held_out(several)
    deck = " ".join(filter(None, (first, _curve(numbers), novelty(numbers, several))))
    return Verdict(_title(numbers, several, asked, compared), deck, warning(numbers, several))


def _title(numbers: dict[str, Any], several: str, asked: bool, compared: bool) -> str:
    if asked:
        return f"{percent(numbers['class_agreement'])} of the generated {several} are read as the class asked for"
    if not compared:
        return f"{numbers['n']:,} generated {several}, and nothing to compare them with"
    if numbers["sliced_w2"] <= numbers["floor"] + 2 * numbers["floor_spread"]:
        return (f"Generated {several} are as near to real {several} as other real {several} are: "
                f"{times(numbers['ratio'])} the distance")
    return f"Generated {several} differ from real ones {times(numbers['ratio'])} as much as real ones from each other"


def times(ratio: float) -> str:
    """A factor as "1.3 times"."""
    return f"{ratio:.2f}\u00a0times" if ratio < 2 else f"{ratio:.1f}\u00a0times"


def novelty(numbers: dict[str, Any], several: str) -> str:
    """How near generated samples come to the training rows, if that was measured."""
    ratio = numbers.get("nearest_ratio")
    if ratio is None:
        return ""
    return (f"Generated {several} lie {times(ratio)} as far from their nearest training "
            f"{'image' if numbers['kind'] == 'image' else 'row'} as real {several} that were held out.")


def warning(numbers: dict[str, Any], several: str) -> str:
    """What is wrong with the model, or nothing."""
    identical, ratio = numbers.get("identical") or 0, numbers.get("nearest_ratio")
    if identical > (numbers.get("identical_held_out") or 0):
        return f"{identical:,} of {numbers['n']:,} generated {several} equal one of the training: the model copies."
    if ratio is not None and ratio < NEAR:
        return f"Generated {several} are nearer to the training data than new real ones: the model copies."
    if (numbers.get("copies") or 0) > _COPIES:
        return (f"{percent(numbers['copies'])} of the generated {several} are nearer to a training sample than 99 % of "
                "new real ones: the model copies some.")
    return ""


def _judge(numbers: dict[str, Any], several: str) -> str:
    accuracy = numbers.get("classifier_accuracy")
    if accuracy is None:
        return _nothing_held_out(several)
    return (f"The classifier has seen the training {several} only, and reads {percent(accuracy)} of held-out real ones "
            "correctly.")


def _nothing_held_out(several: str) -> str:
    return f"No {several} were held out of the training, so there is no real data to compare with."


def _distance(numbers: dict[str, Any], several: str) -> str:
    return (f"The sliced Wasserstein distance to {numbers['held_out']:,} held-out {several} is "
            f"{short(numbers['sliced_w2'])}; two sets of real {several} are "
            f"{spread(numbers['floor'], numbers['floor_spread'])} apart.")


def _curve(numbers: dict[str, Any]) -> str:
    off = numbers.get("off_curve")
    return "" if off is None else f"On average a generated point lies {short(off)} off the curve."


def duration(seconds: float) -> str:
    """A time in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{math.floor(minutes / 60)} h {minutes % 60:.0f} min"
