"""A link from a chapter to the same laws in the explorer."""

from __future__ import annotations

import html
from typing import Any


class Scene:
    """The address of a scene; shows itself as a link to explorer.html, which lies beside the chapter."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        link = html.escape(self.url.replace("|", "%7C"))
        return {"text/html": f'<a href="{link}" target="_blank">Open this scene</a>', "text/plain": self.url}


def scene(view: str, **settings: Any) -> Scene:
    """The explorer's scene of that view with those settings (`undiffuse.explorer.url`), as a link in a notebook.

    Prints the command that opens it from a terminal.
    """
    from undiffuse.explorer import url

    address = url(view, **settings)
    print(f"Open this scene: undiffuse explore '{address.partition('#')[2]}'")
    return Scene(address)
