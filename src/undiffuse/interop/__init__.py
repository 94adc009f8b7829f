"""Pretrained models in, our samplers out: the door to diffusers and to checkpoints of other libraries.

    schedules     what a network was trained on, by the configuration of its scheduler
    networks      how each class of network is called; prompts, autoencoder: the other parts of a pipeline
    pretrained    `from_diffusers`, `foreign`; imported: `load` by any name, and the folder that `import` writes
    checks        whether a configuration says what its network means
    scheduler     our samplers inside their pipelines

Packages of others are imported inside functions.
"""

from undiffuse.interop.checks import check_reading
from undiffuse.interop.imported import OpenedModel, import_model, load, open_model

__all__ = ["OpenedModel", "check_reading", "import_model", "load", "open_model"]
