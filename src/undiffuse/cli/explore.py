"""`undiffuse explore`."""

from __future__ import annotations

from pathlib import Path


def explore(scene: str = "river", /, *, run: Path | None = None, out: Path = Path("explorer.html"),
            open: bool = True) -> None:
    """Write the SDE explorer, one offline HTML page, and open it; with --run, explore a trained model.

    Args:
        scene: A view (river, cloud, compare, lab, guidance, question, digits), the number of a scene from 1 to 10, or
            the part of a link from # on.
        run: Folder of a run on one- or two-dimensional data; a local server runs until interrupted.
        out: File to write.
        open: Open it in the browser.
    """
    import webbrowser

    from undiffuse import explorer

    if run is not None:
        return explorer.serve(run, show=webbrowser.open if open else None)
    hash = explorer.scene_hash(scene)
    path = explorer.write_page(out)
    print(path)
    if open:
        webbrowser.open(path.resolve().as_uri() + hash)
    return None
