"""Conditions: what a row is besides what is learned of it, by name: a class, a number, a vector, or words.

In data they are raw numbers (N, width), NaN where one is not known: the number of a class, a number or vector as it is,
the numbers of the words of a text, filled up with NaN. A condition that is not known is one that was not asked for.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from undiffuse.errors import InputError, did_you_mean, quote

KINDS = ("class", "number", "vector", "words")
RESERVED = ("self", "x", "x_T", "t", "label", "model", "n", "method", "steps", "grid", "seed", "first_index",
            "trajectory", "t_start", "t_end", "denoise_last", "callback", "block", "noise", "options", "progress")
"""Names that mean something else where conditions are given."""
_WORD = re.compile(r"\w+")
_MOST_WORDS, _LONGEST = 4096, 64


@dataclass(frozen=True)
class Condition:
    """What is known of one condition; frozen, and its own configuration.

    kind: one of `KINDS`. words: the names of the classes, or the vocabulary, whose first word is any other. mean, std
    (width,): of numbers and vectors, in their own units. width: how many numbers it takes.
    """

    name: str
    kind: str
    words: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    width: int = 1

    def __post_init__(self) -> None:
        if self.name in RESERVED:
            raise InputError(f"got a condition called {self.name}, which means something else to a sampler; rename it")
        if self.kind not in KINDS or self.width < 1:
            raise InputError(f"got the kind {self.kind!r} for condition {quote(self.name)}; expected one of "
                             f"{', '.join(KINDS)}")

    @property
    def form(self) -> tuple[str, int, int]:
        """What a network has to know: the kind, how many classes or words there are, and the width."""
        return self.kind, len(self.words), self.width

    def rows(self, value: Any, n: int) -> Tensor:
        """A value for all, or a list or tensor of one each, as raw numbers (n, width).

        None is "not known". Raises InputError for an unknown class, another number of values or another width.
        """
        if isinstance(value, Tensor) and tuple(value.shape) == (n, self.width):
            return value
        numbers = value if isinstance(value, Tensor) else torch.tensor(self._numbers(value), dtype=torch.float64)
        if numbers.ndim < (2 if self.kind in ("vector", "words") else 1):
            numbers = numbers.expand(n, *numbers.shape)
        if numbers.ndim == 1:
            numbers = numbers[:, None]
        if tuple(numbers.shape) != (n, self.width):
            raise InputError(f"got {quote(self.name)} of shape {tuple(numbers.shape)}; expected {self._expected} for "
                             f"all, or one for each of {n} samples")
        return numbers

    def coded(self, rows: Tensor) -> Tensor:
        """Raw numbers (n, width) in the units of a network: numbers and vectors standardised."""
        if not self.mean:
            return rows
        mean, std = (torch.tensor(v, dtype=torch.float64).to(rows) for v in (self.mean, self.std))
        return (rows - mean) / std

    def fitted(self, rows: Tensor) -> Condition:
        """The same with mean and deviation of these rows (N, width); other kinds have none."""
        if self.kind not in ("number", "vector"):
            return self
        known = rows[~rows.isnan().any(1)].double()
        std = known.std(0, unbiased=False)
        return dataclasses.replace(self, mean=tuple(known.mean(0).tolist()),
                                   std=tuple(torch.where(std > 0, std, 1.0).tolist()))

    def config(self) -> dict[str, Any]:
        """What `from_config` needs, in JSON types."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(self).items()}

    @property
    def _expected(self) -> str:
        if self.kind == "vector":
            return f"{self.width} numbers"
        return "a text" if self.kind == "words" else f"a {self.kind}"

    def _numbers(self, value: Any) -> Any:
        """A value or a list of them as numbers."""
        if value is None:
            return [float("nan")] * self.width if self.kind in ("vector", "words") else float("nan")
        if isinstance(value, str):
            return self._read(value)
        if isinstance(value, list | tuple) and any(v is None or isinstance(v, str) for v in value):
            return [self._numbers(v) for v in value]
        try:
            return np.asarray(value, np.float64).tolist()
        except (TypeError, ValueError):
            raise InputError(f"got {quote(self.name)} of a type that is no number; expected {self._expected}") from None

    def _read(self, text: str) -> Any:
        """The numbers of a text, such as one from the command line."""
        if self.kind == "words":
            return numbered(text, self.words, self.width)
        if self.kind == "class":
            if text not in self.words:
                known = ", ".join(self.words[:10]) + (", ..." if len(self.words) > 10 else "")
                raise InputError(f"got {self.name}={quote(text)}; expected one of {known}"
                                 f"{did_you_mean(text, self.words)}")
            return float(self.words.index(text))
        try:
            found = [float(word) for word in text.split(",")]
        except ValueError:
            raise InputError(f"got {self.name}={quote(text)}; expected {self._expected}") from None
        return found if self.kind == "vector" else found[0] if len(found) == 1 else found

    def check(self, numbers: Tensor) -> None:
        """Raise InputError for raw numbers that are infinite, or none of the classes or words."""
        known = numbers[~numbers.isnan()]
        if bool(known.isinf().any()):
            raise InputError(f"got an infinite {self.name}; expected a finite number")
        if self.kind in ("class", "words") and len(known) and not 0 <= float(known.min()) <= float(
                known.max()) < len(self.words):
            raise InputError(f"got {self.name} from {float(known.min()):g} to {float(known.max()):g}; expected 0 to "
                             f"{len(self.words) - 1}")


def from_config(config: Mapping[str, Any]) -> Condition:
    """The condition that `config()` described."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    return Condition(**values)


def read(name: str, kind: str | None, values: Any) -> tuple[Condition, Tensor]:
    """A condition and its raw numbers from what a source has: numbers (N,) or (N, D), NaN where missing, or N texts.

    Numbers are numbers, texts of several words are words, other texts are classes, unless `kind` says otherwise.
    """
    texts = None if isinstance(values, np.ndarray) and values.dtype.kind in "iuf" else [str(v) for v in values]
    guess = "number" if texts is None and values.ndim == 1 else "vector" if texts is None else _kind_of(texts)
    kind = kind or guess
    if kind in ("class", "words") and texts is None and values.ndim == 1:
        texts = ["" if np.isnan(v) else format(v, ".12g") for v in values]
    if kind not in KINDS or (kind in ("number", "vector")) != (texts is None) or (
            texts is None and (kind == "vector") != (values.ndim == 2)):
        raise InputError(f"got the kind {kind!r} for condition {quote(name)}; expected {guess}")
    if texts is None:
        found, whole = Condition(name, kind, width=values[0].size), values.reshape(len(values), -1)
    else:
        found = _of_texts(name, kind, texts)
        whole = np.array([found._numbers(text or None) for text in texts], np.float64).reshape(len(texts), -1)
    rows = torch.from_numpy(np.ascontiguousarray(whole, np.float64))
    found.check(rows)
    if bool(rows.isnan().all()):
        raise InputError(f"the condition {quote(name)} has no value in any row; leave it out")
    return found, rows


def split(conditions: Sequence[Condition], given: Tensor) -> dict[str, Tensor]:
    """The raw numbers (B, sum of the widths) of several conditions, by name."""
    pieces = given.split([c.width for c in conditions], 1)
    return {c.name: piece for c, piece in zip(conditions, pieces, strict=True)}


def words_of(text: str) -> list[str]:
    """The words of a text, in small letters, without what stands between them."""
    return _WORD.findall(text.lower())


def numbered(text: str, vocabulary: Sequence[str], length: int) -> list[float]:
    """The numbers of the first words of a text, 0 for one that is not in the vocabulary, filled up with NaN."""
    number = {word: float(i) for i, word in enumerate(vocabulary)}
    found = [number.get(word, 0.0) for word in words_of(text)][:length]
    return [*found, *[float("nan")] * (length - len(found))]


def named(spec: str) -> tuple[str, str | None]:
    """NAME or NAME:KIND as the two of them."""
    name, _, kind = spec.rpartition(":")
    return (name, kind) if name and kind in KINDS else (spec, None)


def _kind_of(texts: Sequence[str]) -> str:
    counts = [len(words_of(text)) for text in texts if text]
    return "words" if sum(counts) >= 2 * max(1, len(counts)) else "class"


def _of_texts(name: str, kind: str, texts: Sequence[str]) -> Condition:
    filled = [text for text in texts if text]
    if kind == "class":
        classes = sorted(set(filled), key=by_number)
        if len(classes) > max(10, len(filled) // 2):
            raise InputError(f"the condition {quote(name)} takes {len(classes)} different values in {len(filled)} "
                             f"rows; expected classes that occur again, or write {quote(name + ':words')} for texts")
        return Condition(name, kind, tuple(classes))
    counts = Counter(word for text in filled for word in words_of(text))
    most = sorted(counts, key=lambda word: (-counts[word], word))[:_MOST_WORDS]
    length = max((len(words_of(text)) for text in filled), default=1)
    return Condition(name, kind, ("", *most), width=max(1, min(_LONGEST, length)))


def by_number(mark: str) -> tuple[int, float, str]:
    """The order of class names and of words: numbers in order, then words in order."""
    try:
        return 0, float(mark), mark
    except ValueError:
        return 1, 0.0, mark
