"""What a training costs on many devices, on paper, from what one device was measured to need.

    time of an update = t₀ + t₁ B/N + all-reduce
    all-reduce = 2 (N − 1)/N · 4 (P + 1) bytes / bandwidth + 2 (N − 1) latency

B rows an update, N devices, P parameters. t₀ and t₁ are measured here, on one core in CPU seconds, with the network of
the recipe for 28x28 images; bandwidth and latency are the reader's to give, and those below are round numbers, not
measurements. The last term is that of a ring, whose number of hops hurts from some dozens of devices on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from undiffuse.data import Dataset
from undiffuse.experiment import Experiment
from undiffuse.random import Purpose, raw_words
from undiffuse.training.batches import Feed, batch_gradient
from undiffuse.training.model_config import describe, pick_device, rebuild
from undiffuse.training.state import TrainingState

NET = {"widths": [48, 96], "stem": 2, "blocks": 1, "attention": [1]}
DEVICES = (1, 8, 64, 512)


def table(bandwidth: str = "10", latency: str = "20", batch: str = "4096", device: str = "cpu") -> Iterator[str]:
    """bandwidth: GB/s of a link. latency: microseconds of a hop. batch: rows an update, of all devices together."""
    t0, t1, parameters = measured(device)
    rows = int(batch)
    unit = "CPU s" if device == "cpu" else "s"
    yield (f"one device ({device}): {t0 * 1e3:.1f} ms an update and {t1 * 1e3:.2f} ms a row, in {unit}; {parameters:,} "
           f"parameters, {4 * parameters / 2**20:.1f} MiB of gradient")
    whole = t0 + t1 * rows
    for n in DEVICES:
        link = 2 * (n - 1) / n * 4 * (parameters + 1) / (float(bandwidth) * 1e9) + 2 * (n - 1) * float(latency) * 1e-6
        step = t0 + t1 * rows / n + (link if n > 1 else 0.0)
        yield (f"{n:4} devices: {step:9.4f} s an update, of which all-reduce {link * 1e3:7.3f} ms; {rows / step:10.0f} "
               f"rows/s; efficiency {whole / (n * step):5.2f}; {n * step / 3600 * 1e4:7.2f} device hours "
               "for 10,000 updates")


def measured(name: str) -> tuple[float, float, int]:
    """Seconds an update, seconds a row, and the number of parameters: a line through two sizes of the batch."""
    device, sizes, seconds = pick_device(name), (2, 32), []
    pixels = torch.from_numpy(raw_words(0, Purpose.DATA, 5, 0, 64 * 98).view("uint8")).reshape(64, 1, 28, 28)
    data = Dataset(pixels, None, "image", "noise", levels=256)
    for size in sizes:
        e = Experiment(data="memory", net="unet", net_args=NET, batch_size=size, device=name)
        model = rebuild(describe(e, data, "")).to(device)
        state, feed = TrainingState(e, model), Feed(e, data, model)
        times = [_update(state, feed, size) for _ in range(6)][1:]
        seconds.append(sorted(times)[len(times) // 2])
    per_row = (seconds[1] - seconds[0]) / (sizes[1] - sizes[0])
    return max(0.0, seconds[0] - sizes[0] * per_row), per_row, sum(p.numel() for p in model.parameters())


def _update(state: TrainingState, feed: Feed, size: int) -> float:
    clock = time.process_time if state.model.device.type == "cpu" else time.perf_counter
    start = clock()
    state.update(batch_gradient(state, feed, 0, size))
    int(state.steps_applied)  # waits for the device
    return clock() - start
