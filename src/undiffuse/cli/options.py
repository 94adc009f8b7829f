"""From words on the command line to an Experiment."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from undiffuse.errors import InputError
from undiffuse.experiment import Experiment, Recipe, read


@Parameter(name="*")
@dataclass(frozen=True)
class Changes:
    """What the user wants otherwise than the recipe; None leaves the recipe's choice.

    Args:
        steps: Number of updates.
        batch: Rows per update.
        lr: Highest learning rate.
        net: Network: mlp, unet or dit.
        sde: Process: vp, subvp, ve, power_ve, edm, cosine or rectified_flow.
        sde_args: Arguments of the process, as in --sde-args.sigma-max 80.
        predict: What the network predicts: edm, data, noise, score, v, velocity or wiener.
        weighting: Weight of the loss: edm, simple, likelihood, min_snr, whitened or learned.
        optimizer: adam, adamw or muon.
        ema: Decay per update of the average of the weights.
        held_out: Rows kept away from training, to measure with.
        size: Side in pixels that images are brought to.
        label: Column of a table that holds the class.
        condition: Columns (or keys of an .npz) that are conditions: age,sex, or with a kind: note:words.
        first: Rows to take, from the start of the data; of OWNER/NAME only these are fetched.
        label_dropout: Share of the rows in which the class, and each condition, is hidden in training.
        flip: Mirror images left to right, each with probability 1/2.
        shift: Move images by up to so many pixels.
        exact: The same bits on 1, 2, 4 and 8 processes.
        seed: The seed of everything random.
        save_every: Updates between checkpoints.
        patience: Saves without a lower held-out path loss after which to stop, and keep the best.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: Of the layers in training: fp32, bf16 or auto (bf16 for a U-Net or DiT on GPUs with units for it).
        compile: Whether the layers are compiled in training: on, off, or auto, where it pays.
    """

    steps: int | None = None
    batch: int | None = None
    lr: float | None = None
    net: str | None = None
    sde: str | None = None
    sde_args: dict[str, float] | None = None
    predict: str | None = None
    weighting: str | None = None
    optimizer: str | None = None
    ema: float | None = None
    held_out: int | None = None
    size: int | None = None
    label: str | None = None
    condition: str | None = None
    first: int | None = None
    label_dropout: float | None = None
    flip: bool | None = None
    shift: int | None = None
    exact: bool | None = None
    seed: int | None = None
    save_every: int | None = None
    patience: int | None = None
    device: str | None = None
    precision: str | None = None
    compile: str | None = None

    def given(self) -> dict[str, Any]:
        """The changes that the user asked for; `sigma-max` on the command line is `sigma_max` here."""
        asked = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        if self.condition is not None:
            asked["condition"] = [name.strip() for name in self.condition.split(",")]
        if self.sde_args is not None:
            asked["sde_args"] = {name.replace("-", "_"): value for name, value in self.sde_args.items()}
        return asked


OptionalChanges = Annotated[Changes | None, Parameter(name="*")]


def resolve(source: str, changes: Changes | None, minutes: float | None = None) -> Recipe:
    """The recipe for `source`: a run or its experiment.json as it is, data by a recipe."""
    given = (changes or Changes()).given()
    if is_run(source) or source.endswith(".json"):
        if minutes is not None:
            raise InputError(f"got minutes={minutes:g} for {source}, which has its number of updates; leave them out")
        return Recipe(read(source).replace(**given), (f"as in {source}",))
    from undiffuse.recipes import for_data

    return for_data(source, **given) if minutes is None else for_data(source, minutes=minutes, **given)


def earlier(source: str, out: Path | None, changes: Changes | None,
            minutes: float | None) -> tuple[Changes | None, float | None, list[str]]:
    """What is asked for, with minutes replaced by the updates of the run that the folder already holds, and why."""
    folder = out or folder_for(source, Experiment(data=source))
    if minutes is None or is_run(source) or not is_run(folder) or (changes and changes.steps is not None):
        return changes, minutes, []
    steps = read(folder).steps
    why = f"{steps:,} updates, as the run in {folder} has them; they were not measured again."
    return dataclasses.replace(changes or Changes(), steps=steps), None, [why]


def is_run(source: str | Path) -> bool:
    """Whether `source` is the folder of a run."""
    return (Path(source) / "experiment.json").is_file()


def folder_for(source: str, experiment: Experiment) -> Path:
    """Where a run goes unless the user says otherwise: where it was, or runs/NAME with the name of the data."""
    return Path(source) if is_run(source) else Path("runs") / Path(experiment.data).resolve().stem
