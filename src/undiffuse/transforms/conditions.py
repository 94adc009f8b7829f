"""Conditions: attributes of a sample on which a model is conditioned, by name.

A condition is a class, a number, a vector or the words of a text. In data it is a numeric row (N, width): the number of
the class, the number or vector itself, or the vocabulary numbers of the first words of the text, filled up with NaN.
NaN is an unknown condition, which equals one that was not requested.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from undiffuse.errors import InputError, did_you_mean, quote

KINDS = ("class", "number", "vector", "words")
RESERVED = ("self", "x", "x_T", "t", "label", "model", "n", "method", "steps", "grid", "seed", "first_index",
            "trajectory", "x0", "strength", "t_start", "t_end", "denoise_last", "callback", "block", "noise", "options",
            "progress")
"""Arguments of `sample` and of models, which cannot be names of conditions."""
_WORD = re.compile(r"\w+")
_MAX_VOCABULARY, _MAX_WORDS = 4096, 64
_LONG = 10.0  # the largest number over the typical one from which a tail is long


@dataclass(frozen=True)
class Condition:
    """One condition of a model; frozen, and its own configuration.

    Args:
        name: its name, an argument of `sample` and `denoise`.
        kind: one of `KINDS`.
        vocabulary: names of the classes, or words, of which number 0 stands for all unknown words.
        mean: mean of a number or vector over the training rows, (width,).
        std: standard deviation, (width,).
        width: how many numbers it takes.
        log_scale: for entries with long tails the s of sign(x) log(1 + |x|/s), in whose units mean and std are; 0 for
            other entries; () where all are.
    """

    name: str
    kind: str
    vocabulary: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    width: int = 1
    log_scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.name in RESERVED:
            raise InputError(f"got a condition called {self.name}, which is an argument of sample; rename it")
        if self.kind not in KINDS or self.width < 1:
            raise InputError(f"got the kind {self.kind!r} for condition {quote(self.name)}; expected one of "
                             f"{', '.join(KINDS)}")

    @property
    def form(self) -> tuple[str, int, int]:
        """Arguments of the embedding: kind, size of the vocabulary, width."""
        return self.kind, len(self.vocabulary), self.width

    def rows(self, value: Any, n: int) -> Tensor:
        """Numeric rows (n, width) of one value for all samples, or of a list or tensor with one value per sample.

        Raises:
            InputError: for an unknown class, another number of values and another width. None is an unknown condition.
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

    def standardise(self, rows: Tensor) -> Tensor:
        """Numeric rows (n, width) in the units of a network: (rows − mean)/std of numbers and vectors, whose long tails
        are logarithms."""
        if not self.mean:
            return rows
        mean, std = (torch.tensor(v, dtype=torch.float64).to(rows) for v in (self.mean, self.std))
        return (self._shortened(rows) - mean) / std

    def fitted(self, rows: Tensor) -> Condition:
        """This condition with mean and standard deviation of training rows (N, width), for numbers and vectors."""
        if self.kind not in ("number", "vector"):
            return self
        values = rows[~rows.isnan().any(1)].double()
        scale = _log_scale(values) if len(values) else values.new_zeros(self.width)
        scaled = dataclasses.replace(self, log_scale=tuple(scale.tolist()) if bool(scale.any()) else ())
        values = scaled._shortened(values)
        std = values.std(0, unbiased=False)
        return dataclasses.replace(scaled, mean=tuple(values.mean(0).tolist()),
                                   std=tuple(torch.where(std > 0, std, 1.0).tolist()))

    def config(self) -> dict[str, Any]:
        """The JSON-compatible description that `from_config` reads."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(self).items()}

    def check(self, rows: Tensor) -> None:
        """InputError for numeric rows that are infinite or outside the vocabulary."""
        values = rows[~rows.isnan()]
        if bool(values.isinf().any()):
            raise InputError(f"got an infinite {self.name}; expected a finite number")
        if self.kind in ("class", "words") and len(values) and not 0 <= float(values.min()) <= float(
                values.max()) < len(self.vocabulary):
            raise InputError(f"got {self.name} from {float(values.min()):g} to {float(values.max()):g}; expected 0 to "
                             f"{len(self.vocabulary) - 1}")

    def _shortened(self, rows: Tensor) -> Tensor:
        """sign(x) log(1 + |x|/s) of the entries that have a scale s."""
        if not self.log_scale:
            return rows
        s = torch.tensor(self.log_scale, dtype=torch.float64).to(rows)
        return torch.where(s > 0, rows.sign() * torch.log1p(rows.abs() / torch.where(s > 0, s, 1.0)), rows)

    @property
    def _expected(self) -> str:
        if self.kind == "vector":
            return f"{self.width} numbers"
        return "a text" if self.kind == "words" else f"a {self.kind}"

    def _numbers(self, value: Any) -> Any:
        """The numbers of a value or of a list of values."""
        if value is None:
            return [math.nan] * self.width if self.kind in ("vector", "words") else math.nan
        if isinstance(value, str):
            return self._parse(value)
        if isinstance(value, list | tuple) and any(v is None or isinstance(v, str) for v in value):
            return [self._numbers(v) for v in value]
        try:
            return np.asarray(value, np.float64).tolist()
        except (TypeError, ValueError):
            raise InputError(f"got {quote(self.name)} of a type that is no number; expected {self._expected}") from None

    def _parse(self, text: str) -> Any:
        """The numbers of a text, such as one from the command line."""
        if self.kind == "words":
            return word_numbers(text, self.vocabulary, self.width)
        if self.kind == "class":
            if text not in self.vocabulary:
                classes = ", ".join(self.vocabulary[:10]) + (", ..." if len(self.vocabulary) > 10 else "")
                raise InputError(f"got {self.name}={quote(text)}; expected one of {classes}"
                                 f"{did_you_mean(text, self.vocabulary)}")
            return float(self.vocabulary.index(text))
        try:
            numbers = [float(word) for word in text.split(",")]
        except ValueError:
            raise InputError(f"got {self.name}={quote(text)}; expected {self._expected}") from None
        return numbers if self.kind == "vector" else numbers[0] if len(numbers) == 1 else numbers


def from_config(config: Mapping[str, Any]) -> Condition:
    """The condition that `Condition.config` described."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    return Condition(**values)


def infer(name: str, kind: str | None, values: Any) -> Condition:
    """The condition that training values imply.

    Args:
        name: name of the condition.
        kind: one of `KINDS`; None: number or vector for numbers, words for texts of several words, else class.
        values: numbers (N,) or (N, D), NaN where missing, or N texts, "" where missing.

    Raises:
        InputError: for a kind that the values are not, and where all values are missing.
    """
    texts = None if _is_numeric(values) else [str(v) for v in values]
    guess = "number" if texts is None and values.ndim == 1 else "vector" if texts is None else _kind_of(texts)
    kind = kind or guess
    if kind in ("class", "words") and texts is None and values.ndim == 1:
        texts = _texts_of(values)
    if kind not in KINDS or (kind in ("number", "vector")) != (texts is None) or (
            texts is None and (kind == "vector") != (values.ndim == 2)):
        raise InputError(f"got the kind {kind!r} for condition {quote(name)}; expected {guess}")
    if not any(texts) if texts is not None else bool(np.isnan(values).all()):
        raise InputError(f"the condition {quote(name)} has no value in any row; leave it out")
    return Condition(name, kind, width=values[0].size) if texts is None else _of_texts(name, kind, texts)


def infer_rows(name: str, kind: str | None, values: Any) -> tuple[Condition, Tensor]:
    """The condition that training values imply, see `infer`, and their numeric rows (N, width), float64.

    Args:
        name: name of the condition.
        kind: see `infer`.
        values: see `infer`.
    """
    condition, n = infer(name, kind, values), len(values)
    if condition.kind in ("number", "vector"):
        rows = torch.from_numpy(np.ascontiguousarray(values.reshape(n, -1), np.float64))
    else:
        texts = _texts_of(values) if _is_numeric(values) else [str(v) for v in values]
        rows = condition.rows([text or None for text in texts], n)
    condition.check(rows)
    return condition, rows


def split(conditions: Sequence[Condition], rows: Tensor) -> dict[str, Tensor]:
    """The numeric rows (B, sum of the widths) of several conditions, by name."""
    pieces = rows.split([c.width for c in conditions], 1)
    return {c.name: piece for c, piece in zip(conditions, pieces, strict=True)}


def words_of(text: str) -> list[str]:
    """The lower-case words of a text, without punctuation."""
    return _WORD.findall(text.lower())


def word_numbers(text: str, vocabulary: Sequence[str], length: int) -> list[float]:
    """The vocabulary numbers of the first `length` words of a text, 0 for unknown words, filled up with NaN.

    Args:
        text: words of one sample.
        vocabulary: known words; the number of a word is its position.
        length: number of words kept, the length of the result.
    """
    number = {word: float(i) for i, word in enumerate(vocabulary)}
    numbers = [number.get(word, 0.0) for word in words_of(text)][:length]
    return [*numbers, *[math.nan] * (length - len(numbers))]


def parse_spec(spec: str) -> tuple[str, str | None]:
    """Name and kind of NAME or NAME:KIND."""
    name, _, kind = spec.rpartition(":")
    return (name, kind) if name and kind in KINDS else (spec, None)


def categories_of(texts: Sequence[str], error: Callable[[int], str]) -> tuple[str, ...]:
    """The distinct texts, numbers in order, then words in order.

    Raises:
        InputError: with the sentence `error(how many)` if they hardly repeat, so that they must be identifiers or text.
    """
    distinct = sort_categories(set(texts))
    if hardly_repeat(len(distinct), len(texts)):
        raise InputError(error(len(distinct)))
    return distinct


def sort_categories(texts: Iterable[str]) -> tuple[str, ...]:
    """Different texts, numbers in order, then words in order."""
    return tuple(sorted(texts, key=_by_number))


def hardly_repeat(distinct: int, total: int) -> bool:
    """Whether a column is one of identifiers or free text: more than half of its texts, and more than ten, differ.

    Args:
        distinct: number of different texts.
        total: number of texts.
    """
    return distinct > max(10, total // 2)


def _log_scale(values: Tensor) -> Tensor:
    """The scale of the logarithm for columns (N, width) with long tails, (width,); 0 for other columns.

    For columns of one sign it is the first percentile of the distances to 0 that are not 0, for others their median.
    """
    sizes = values.abs()
    long = sizes.amax(0) > _LONG * sizes.median(0).values.clamp_min(sizes.mean(0) / _LONG)
    scale = values.new_zeros(values.shape[1])
    for j in long.nonzero()[:, 0].tolist():
        positive = sizes[:, j][sizes[:, j] > 0]
        signed = bool((values[:, j] < 0).any()) and bool((values[:, j] > 0).any())
        scale[j] = positive.median() if signed else positive.quantile(0.01)
    return scale


def _is_numeric(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype.kind in "iuf"


def _texts_of(values: Any) -> list[str]:
    """Numbers as texts, "" where missing."""
    return ["" if np.isnan(v) else format(v, ".12g") for v in values]


def _kind_of(texts: Sequence[str]) -> str:
    counts = [len(words_of(text)) for text in texts if text]
    return "words" if sum(counts) >= 2 * max(1, len(counts)) else "class"


def _of_texts(name: str, kind: str, texts: Sequence[str]) -> Condition:
    filled = [text for text in texts if text]
    if kind == "class":
        return Condition(name, kind, categories_of(filled, lambda count: (
            f"the condition {quote(name)} takes {count} different values in {len(filled)} rows; expected classes that "
            f"occur again, or write {quote(name + ':words')} for texts")))
    counts = Counter(word for text in filled for word in words_of(text))
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[:_MAX_VOCABULARY]
    length = max((len(words_of(text)) for text in filled), default=1)
    return Condition(name, kind, ("", *frequent), width=max(1, min(_MAX_WORDS, length)))


def _by_number(text: str) -> tuple[int, float, str]:
    try:
        return 0, float(text), text
    except ValueError:
        return 1, 0.0, text
