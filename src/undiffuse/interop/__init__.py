"""Pretrained models in, our samplers out: the door to diffusers and to checkpoints of other libraries.

    schedules     what a network was trained on, by the configuration of its scheduler
    networks      how each class of network is called; prompts, autoencoder: the other parts of a pipeline
    pretrained    `from_diffusers`, `foreign`

Packages of others are imported inside functions.
"""
