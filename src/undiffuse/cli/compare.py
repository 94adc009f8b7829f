"""`undiffuse compare SOURCE`."""

from __future__ import annotations

from pathlib import Path

from undiffuse.cli.parsing import cycle_prompts, guided, scale_of


def compare(source: str, /, *, steps: str = "8,12,20", n: int = 4, label: int | None = None,
            prompt: list[str] | None = None, negative: str | None = None, guidance_scale: list[str] | None = None,
            fine: int = 200, seed: int = 0, out: Path | None = None, device: str = "auto") -> None:
    """Compare our samplers with those of diffusers on a pretrained model: equal starts, distance to a fine path.

    Args:
        source: Folder of `undiffuse import` or of a diffusers pipeline, or hf:OWNER/NAME.
        steps: Numbers of network evaluations, such as 5,8,20.
        n: Number of samples.
        label: Class of all samples, for a model with classes.
        prompt: Text for a text-to-image model; repeat the flag for several in turn.
        negative: Text that guidance moves away from, instead of the empty text.
        guidance_scale: Guidance strength: 1 conditional, above 1 stronger.
        fine: Number of steps of the path that distances are measured to.
        seed: Seed of the starts.
        out: Page to write, a PNG with the samples; compare.png in the folder by default.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    from undiffuse import interop
    from undiffuse.cli.parsing import budgets_of
    from undiffuse.interop import comparison
    from undiffuse.report.plots import comparison_figure

    opened = interop.open_model(source, device)
    names = [*["label"] * (label is not None), *["prompt"] * bool(prompt)]
    model = guided(opened.model, scale_of(guidance_scale), names, prompt, negative)
    cond = {**({} if label is None else {"label": label}), **cycle_prompts(prompt, 0, n)}
    path, compared = comparison.compare(model, budgets_of(steps), n, fine=fine, seed=seed, **cond)
    print(*comparison.lines(compared), sep="\n")
    print(comparison_figure(compared, path, model.transform, out or opened.folder / "compare.png"))
