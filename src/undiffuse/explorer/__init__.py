"""The SDE explorer: a page in which every picture shows the exact law and the simulated particles on the same axes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from undiffuse.explorer.laws import law
from undiffuse.explorer.page import page, scene_hash, scenes, url, write_page
from undiffuse.explorer.widget import widget

__all__ = ["law", "page", "scene_hash", "scenes", "serve", "url", "widget", "write_page"]


def serve(run: Path | str, *, port: int = 0, show: Callable[[str], object] | None = None) -> None:
    """Show a trained model of one or two numbers at an address of this machine only, until interrupted.

    port: 0 takes a free one. show: is called with the address, such as webbrowser.open. Raises InputError for a folder
    that holds no run, and for a model of more than two numbers.
    """
    from undiffuse import training
    from undiffuse.explorer.own import OwnModel
    from undiffuse.explorer.server import Server

    with Server(OwnModel(training.load(run), training.load_data(run)[0]), port) as server:
        print(f"{server.address}\nonly this machine can open it; Ctrl-C ends it", flush=True)
        if show is not None:
            show(server.address)
        server.serve_forever()
