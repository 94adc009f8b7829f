"""`undiffuse export RUN --to diffusers --out FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def export(run: str, /, *, to: Literal["diffusers", "timesteps"] = "diffusers", out: Path | None = None,
           standalone: bool = False, evaluations: int = 10, push: str | None = None, license: str | None = None,
           private: bool = True, dry_run: bool = False) -> None:
    """Write a run as a folder that stock diffusers pipelines load, or print the times of its tuned sampler.

    Args:
        run: Folder of the run; for timesteps, of an imported model too.
        to: diffusers, a folder for DDPMPipeline; timesteps, the nodes of the tuned sampler for stock schedulers.
        out: Folder to write, for diffusers; exported in the run by default.
        standalone: Write the code that names the network next to the weights, for trust_remote_code=True.
        evaluations: Number of evaluations of the tuned sampler, for timesteps.
        push: OWNER/NAME of the Hugging Face Hub to upload to, with a model card of measured figures.
        license: Licence of the weights, required for --push.
        private: Whether a new repository is private.
        dry_run: With --push, list the files and upload nothing.
    """
    from undiffuse import interop
    from undiffuse.errors import InputError
    from undiffuse.interop import export as exporting

    if to == "timesteps":
        for name, values in exporting.stock_times(interop.open_model(run, "cpu"), evaluations).items():
            print(f"{name}={values}")
        return
    if push is not None and not license:
        raise InputError("got --push without --license; expected the licence of the weights, such as apache-2.0")
    folder = exporting.export_run(run, out or Path(run) / "exported", standalone=standalone)
    if license:
        (folder / "README.md").write_text(exporting.card(interop.open_model(run, "cpu"), license), "utf-8")
    print(folder)
    if push is not None:
        print(*exporting.push(folder, push, private=private, dry_run=dry_run), sep="\n")
