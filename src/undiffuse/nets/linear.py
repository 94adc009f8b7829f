"""A linear layer of which a row is the same bytes wherever it stands in its batch."""

from __future__ import annotations

from torch import Tensor, nn

EVEN = 4
"""At other numbers of inputs a matrix product may round a row by its place, even in a batch of 4, 8, 12 ... rows."""


class Linear(nn.Linear):
    """W h + b, the inputs gone on with zeros up to a multiple of `EVEN`."""

    def forward(self, h: Tensor) -> Tensor:
        """The layer applied to h (..., inputs)."""
        short = -self.in_features % EVEN
        if not short:
            return super().forward(h)
        padded = nn.functional.pad
        return nn.functional.linear(padded(h, (0, short)), padded(self.weight, (0, short)), self.bias)
