"""Training: one loop, stateless randomness, checkpoints that are whole or refused, and the folder of a run."""

from undiffuse.training.loop import train
from undiffuse.training.model_config import pick_device
from undiffuse.training.replay import Replay, replay
from undiffuse.training.run import Run, load, load_data, open_run

__all__ = ["Replay", "Run", "load", "load_data", "open_run", "pick_device", "replay", "train"]
