"""Training.

run, model_config, checkpoint, metrics_log: the folder of a run and its files
loop, state, batches, optimizers, ema: the updates
early_stopping, ema_sweep: the choice of the model
linear_loss: the loss beside that of the best linear denoiser
distributed, precision, timing: speed
diagnose, replay: explanation of single updates
"""

from undiffuse.training.loop import train
from undiffuse.training.model_config import pick_device
from undiffuse.training.replay import Replay, replay
from undiffuse.training.run import Run, load, load_data, open_run

__all__ = ["Replay", "Run", "load", "load_data", "open_run", "pick_device", "replay", "train"]
