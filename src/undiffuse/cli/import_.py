"""`undiffuse import SOURCE --out RUN`."""

from __future__ import annotations

from pathlib import Path


def import_(source: str, /, *, out: Path, size: int | None = None, revision: str | None = None) -> None:
    """Make a folder that every command takes as a model from a pretrained diffusers pipeline; weights are not copied.

    Args:
        source: Folder of the pipeline, or OWNER/NAME of the Hugging Face Hub.
        out: Folder to write.
        size: Side of the images in pixels; the network's by default.
        revision: Revision of the hub.
    """
    from undiffuse import interop

    print(*interop.import_model(source, out, size, revision), sep="\n")
