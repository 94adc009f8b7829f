"""The SDE explorer: an offline page that shows exact distributions and simulated particles on the same axes.

mixtures: the data distributions of the page; page: the HTML file, scenes and links (text and script from `static/`);
bundle: ES modules to one script; widget: the page in a notebook; run_model and server: the page for a trained model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from undiffuse.explorer.mixtures import mixture
from undiffuse.explorer.page import page, scene_hash, scenes, url, write_page
from undiffuse.explorer.widget import widget

__all__ = ["mixture", "page", "scene_hash", "scenes", "serve", "url", "widget", "write_page"]


def serve(run: Path | str, *, port: int = 0, show: Callable[[str], object] | None = None) -> None:
    """Serve the explorer for a trained 1-D or 2-D model on the loopback address, until interrupted.

    Args:
        run: folder of the run.
        port: port of the server; 0: any free port.
        show: called with the address, such as `webbrowser.open`.

    Raises:
        InputError: if `run` is not a run folder or its samples have more than two coordinates.
    """
    from undiffuse import training
    from undiffuse.explorer.run_model import RunModel
    from undiffuse.explorer.server import Server

    with Server(RunModel(training.load(run), training.load_data(run)[0]), port) as server:
        print(f"{server.address}\nreachable from this machine only; stop with Ctrl-C", flush=True)
        if show is not None:
            show(server.address)
        server.serve_forever()
