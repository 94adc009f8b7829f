"""Prompts as a condition with an open vocabulary: each text is a row of a store of its embeddings, encoded once.

The number of a row travels through blocks and conditions like any number; the network looks its embeddings up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.transforms.conditions import Condition

Encoder = Callable[[str | None], dict[str, Tensor]]
"""The tensors (1, ...) that a network takes for a text; None: the unconditional ones."""


class PromptStore:
    """The embeddings of texts, by number."""

    def __init__(self, encode: Encoder) -> None:
        self.encode, self.texts = encode, list[str | None]()
        self.numbers, self.tensors = dict[str | None, int](), dict[int, dict[str, Tensor]]()

    def number(self, text: str | None) -> int:
        """The number of a text, which is encoded if it is new."""
        if text not in self.numbers:
            with torch.no_grad():
                self.tensors[len(self.texts)] = self.encode(text)
            self.numbers[text] = len(self.texts)
            self.texts.append(text)
        return self.numbers[text]

    def gather(self, numbers: Tensor) -> dict[str, Tensor]:
        """The tensors (B, ...) of rows (B,); NaN is the unconditional one."""
        rows = [self.tensors[self.number(None) if math.isnan(v) else int(v)] for v in numbers.tolist()]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


class Prompt(Condition):
    """The condition `prompt`: a text, or one text per sample."""

    def __init__(self, store: PromptStore) -> None:
        super().__init__("prompt", "class")
        object.__setattr__(self, "kind", "prompt")
        object.__setattr__(self, "store", store)

    store: PromptStore

    def rows(self, value: Any, n: int) -> Tensor:
        """Numbers (n, 1) of the texts in the store; NaN for None."""
        if isinstance(value, Tensor):
            return (value.reshape(-1, 1) if value.numel() == n else value.reshape(1, 1).expand(n, 1)).double()
        texts = [value] * n if value is None or isinstance(value, str) else list(value)
        if len(texts) != n or not all(text is None or isinstance(text, str) for text in texts):
            raise InputError(f"got {len(texts)} prompts of type {type(texts[0]).__name__ if texts else 'nothing'} for "
                             f"{n} samples; expected one text for all, or one for each")
        numbers = {text: math.nan if text is None else float(self.store.number(text)) for text in set(texts)}
        return torch.tensor([[numbers[text]] for text in texts], dtype=torch.float64)

    def check(self, rows: Tensor) -> None:
        """InputError for numbers that are not in the store."""
        values = rows[~rows.isnan()]
        if len(values) and not 0 <= float(values.min()) <= float(values.max()) < len(self.store.texts):
            raise InputError("got a prompt that is a number; expected a text")
