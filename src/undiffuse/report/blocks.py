"""What a page consists of: sections of figures as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Key = tuple[tuple[str, str], ...]
"""Texts and roles of the colours of a figure: real, generated, muted or ink; "dashed" after the role makes a line."""

@dataclass(frozen=True)
class ReportFigure:
    """A figure of the page: its content, caption, colour key, and the macro of figures.html that lays it out."""

    content: Any
    caption: str
    key: Key = ()
    layout: str = "graphic"


Block = ReportFigure | tuple[ReportFigure, ...]
"""A figure, or figures side by side."""


@dataclass(frozen=True)
class Section:
    """A section of the page: its title, a paragraph or "", and figures."""

    title: str
    text: str
    blocks: tuple[Block, ...]
