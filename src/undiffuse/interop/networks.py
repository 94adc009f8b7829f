"""How each class of network is called: adapters with the arguments (x, c, label, rows) of a `Denoiser`'s network.

States and times stay in float32; x is cast to the network's precision at its door. Outputs with twice the channels
(learned variance) lose the second half.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from undiffuse.errors import InputError
from undiffuse.interop.prompts import PromptStore

Rows = Tensor | None
"""Values (B, ...) of the samples, if there are any."""
Prompts = dict[str, Tensor]
"""The tensors (B, ...) that a network takes for prompts, by name."""


class Adapter(nn.Module):
    """A pretrained network, called as networks of this library are.

    Args:
        net: the network.
        store: embeddings of prompts; None: it takes none.

    `spread` is the learned variance of the last call, the second half of its channels.
    """

    def __init__(self, net: nn.Module, store: PromptStore | None = None) -> None:
        super().__init__()
        self.net, self.store = net, store
        self.spread: Tensor | None = None

    def call(self, x: Tensor, c: Tensor, label: Rows, prompt: Prompts, rows: Rows) -> Tensor:
        """The output for x in the network's precision."""
        raise NotImplementedError

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
        """F, float32."""
        dtype = next((p.dtype for p in self.net.parameters() if p.is_floating_point()), x.dtype)
        prompt = {} if self.store is None or rows is None else {
            name: v.to(x.device, dtype if v.is_floating_point() else v.dtype)
            for name, v in self.store.gather(rows[:, 0]).items()}
        F = self.call(x.to(dtype), c.to(torch.promote_types(dtype, torch.float32)), label, prompt, rows)
        if F.shape[1] == 2 * x.shape[1]:
            F, self.spread = F.to(x.dtype).chunk(2, 1)
        if F.shape != x.shape:
            raise InputError(f"got an output of shape {tuple(F.shape[1:])} for x of shape {tuple(x.shape[1:])}; "
                             "expected the same, or twice the channels (learned variance)")
        return F.to(x.dtype)


class Plain(Adapter):
    """A module net(x, c), or net(x, c, label) for a model with classes."""

    def call(self, x: Tensor, c: Tensor, label: Rows, prompt: Prompts, rows: Rows) -> Tensor:
        """net(x, c)."""
        return sample_of(self.net(x, c) if label is None else self.net(x, c, label))


class UNet2D(Adapter):
    """`UNet2DModel`; with class embeddings it has no null class."""

    def call(self, x: Tensor, c: Tensor, label: Rows, prompt: Prompts, rows: Rows) -> Tensor:
        """unet(x, c, class_labels)."""
        classes = getattr(self.net.config, "num_class_embeds", None)
        if label is not None and classes is not None and bool((label >= classes).any()):
            raise InputError("got no label for a network without a null class; expected label= from 0 to "
                             f"{classes - 1}")
        return sample_of(self.net(x, c, class_labels=label))


class Transformer2D(Adapter):
    """`DiTTransformer2DModel`: the null class is the number of classes."""

    def call(self, x: Tensor, c: Tensor, label: Rows, prompt: Prompts, rows: Rows) -> Tensor:
        """transformer(x, timestep, class_labels)."""
        return sample_of(self.net(x, timestep=c, class_labels=label))


class ConditionalUNet(Adapter):
    """`UNet2DConditionModel` of Stable Diffusion; `added` are the extra embeddings of XL."""

    def call(self, x: Tensor, c: Tensor, label: Rows, prompt: Prompts, rows: Rows) -> Tensor:
        """unet(x, c, encoder_hidden_states, added_cond_kwargs)."""
        added = {name: v for name, v in prompt.items() if name in ("text_embeds", "time_ids")}
        return sample_of(self.net(x, c, encoder_hidden_states=prompt["encoder_hidden_states"],
                                  added_cond_kwargs=added or None))


class JointTransformer(Adapter):
    """`SD3Transformer2DModel`."""

    def call(self, x: Tensor, c: Tensor, label: Rows, prompt: Prompts, rows: Rows) -> Tensor:
        """transformer(hidden_states, timestep, encoder_hidden_states, pooled_projections)."""
        return sample_of(self.net(hidden_states=x, timestep=c, **prompt))


class PackedTransformer(Adapter):
    """`FluxTransformer2DModel`: patches of 2x2 latents are tokens, time is t in [0, 1], guidance is an input."""

    default_guidance = 3.5

    def call(self, x: Tensor, c: Tensor, label: Rows, prompt: Prompts, rows: Rows) -> Tensor:
        """The unpacked output for packed latents."""
        B, C, h, w = x.shape
        tokens = x.view(B, C, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(B, h * w // 4, 4 * C)
        place = torch.zeros(h // 2, w // 2, 3, device=x.device, dtype=x.dtype)
        place[..., 1] += torch.arange(h // 2, device=x.device)[:, None]
        place[..., 2] += torch.arange(w // 2, device=x.device)
        guidance = None
        if getattr(self.net.config, "guidance_embeds", False):
            guidance = torch.full_like(c, self.default_guidance) if rows is None else rows[:, 1].nan_to_num(
                self.default_guidance)
        text = prompt["encoder_hidden_states"]
        F = sample_of(self.net(hidden_states=tokens, timestep=c / 1000, guidance=guidance, img_ids=place.flatten(0, 1),
                               txt_ids=torch.zeros(text.shape[1], 3, device=x.device, dtype=x.dtype), **prompt))
        return F.view(B, h // 2, w // 2, C, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(B, C, h, w)


def sample_of(output: Any) -> Tensor:
    """The tensor of a network's output, which may be in a tuple or in its `sample`."""
    value = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
    if not isinstance(value, Tensor):
        raise InputError(f"got an output of type {type(output).__name__}; expected a tensor")
    return value


def block_size(net: nn.Module, shape: tuple[int, ...]) -> int:
    """Rows per call by the size of network and state: 1 above 10⁸ parameters, else a power of two up to 64."""
    if sum(p.numel() for p in net.parameters()) > 10**8:
        return 1
    return int(2 ** min(6, max(0, 17 - math.ceil(math.log2(math.prod(shape))))))
