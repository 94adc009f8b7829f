"""The few pieces of HTML that a page is put together from; every text is escaped here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

Key = tuple[str, str]
"""A word and the role of its colour: real, made, muted; "dashed" after a blank makes it a line."""


def plain(text: str) -> str:
    """Text made safe for HTML."""
    return escape(text)


def tag(name: str, *content: str, **attributes: str) -> str:
    """An element around content that is HTML already; `style_` and the like lose their underscore."""
    inside = "".join(f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items() if value)
    return f"<{name}{inside}>{''.join(content)}</{name}>"


def words(name: str, text: str, class_: str = "") -> str:
    """An element around plain text."""
    return tag(name, escape(text), class_=class_)


def figure(content: str, caption: str, key: Iterable[Key] = (), class_: str = "") -> str:
    """A figure with its caption below and the meaning of its colours above."""
    entries = "".join(words("span", word, role) for word, role in key)
    above = tag("p", entries, class_="key") if entries else ""
    return tag("figure", above, content, words("figcaption", caption), class_=class_)


def pair(*figures: str) -> str:
    """Figures side by side where there is room."""
    return tag("div", *figures, class_="pair")


def section(title: str, text: str, *content: str) -> str:
    """A section of the page: its title, a paragraph if there is one, and what follows."""
    return tag("section", words("h2", title), words("p", text) if text else "", *content)


def definitions(values: Mapping[str, object]) -> str:
    """Names and values as a list in columns."""
    rows = (tag("div", words("dt", name), words("dd", str(value))) for name, value in values.items())
    return tag("dl", *rows, class_="configuration")


def number(value: str, label: str, aside: str = "") -> str:
    """A large number, what it is, and what to compare it with."""
    return tag("div", words("dd", value), words("dt", label), words("dd", aside, "aside") if aside else "")
