"""A wrapper that leaves the denoiser of a model as it is."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from undiffuse.model import Wrapper
from undiffuse.sde import Time
from undiffuse.tensors import ArrayLike


class TransparentWrapper(Wrapper):
    """A wrapper with the inner model's denoiser: it only adds to the model, and passes on all other attributes."""

    @property
    def moments_are_exact(self) -> bool:
        """Whether the moments of the inner model are exact."""
        return self.inner.moments_are_exact

    @property
    def condition_names(self) -> tuple[str, ...] | None:
        """The conditions of the inner model."""
        return self.inner.condition_names

    def denoise(self, x: ArrayLike, t: Time, **cond: Any) -> Tensor:
        """D(x, t) of the inner model."""
        return self.inner.denoise(self.states(x), t, **cond)

    def divergence(self, x: Tensor, t: Time, **cond: Any) -> Tensor | None:
        """∇·D of the inner model."""
        return self.inner.divergence(x, t, **cond)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "inner" or name.startswith("__"):
                raise
            return getattr(self.inner, name)
