"""Attributes of a wrapped object, and the names of the keyword arguments of a method."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from inspect import signature
from typing import Any


class Delegated:
    """An attribute of the inner object, unless it is set on the wrapper."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, wrapper: Any, owner: type) -> Any:
        return self if wrapper is None else getattr(wrapper.inner, self.name)


def delegated() -> Any:
    """`Delegated`, for an annotated class attribute."""
    return Delegated()


def keywords(method: Callable[..., Any], variadic: bool = True) -> tuple[str, ...] | None:
    """The names of a bound `denoise(x, t, ...)` after x and t; None for one that takes any, if `variadic`."""
    return _keywords_of(getattr(method, "__func__", method), hasattr(method, "__func__"), variadic)


@lru_cache(256)
def _keywords_of(function: Callable[..., Any], bound: bool, variadic: bool) -> tuple[str, ...] | None:
    parameters = list(signature(function).parameters.values())[2 + bound:]
    names = tuple(p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
    return None if variadic and len(names) < len(parameters) else names
