"""Stable Diffusion XL: two text encoders, and conditions beside the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from zerocon.backbones.compiling import as_set
from zerocon.backbones.loading import (
    Parts,
    frozen,
    load_parts,
    pick_device,
    pick_dtype,
)
from zerocon.backbones.stable_diffusion import (
    StableDiffusion,
    StableDiffusionBackbone,
)
from zerocon.core.conditions import Condition
from zerocon.core.size import Size


@dataclass
class XLParts(Parts):
    """Stable Diffusion's parts and a second text encoder."""

    classes: ClassVar[dict[str, Any]] = {
        **Parts.classes,
        "text_encoder_2": CLIPTextModelWithProjection,
        "tokenizer_2": CLIPTokenizer,
    }
    example: ClassVar[str] = "sdxl"

    text_encoder_2: CLIPTextModelWithProjection
    tokenizer_2: CLIPTokenizer


class SDXLBackbone(StableDiffusionBackbone):
    """A condition has the tokens of both text encoders and the second one's pooled embedding."""

    def __init__(
        self,
        parts: XLParts,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        fingerprint: str,
        size: Size | None = None,
        *,
        empty_as_zeros: bool = True,
    ) -> None:
        super().__init__(parts, name, device, dtype, fingerprint, size)
        self.empty_as_zeros = empty_as_zeros
        self.readers = (
            (parts.tokenizer, self.text_encoder),
            (parts.tokenizer_2, frozen(parts.text_encoder_2, device, dtype)),
        )
        # Original size, crop's corner, target size; each height first, as in the model's training.
        sizes = (*self.size, 0, 0, *self.size)
        self._sizes = torch.tensor(sizes, device=device, dtype=dtype)

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Condition:
        read = [self._read(prompts, *reader) for reader in self.readers]
        tokens = torch.cat([out.hidden_states[-2] for out in read], -1)
        condition = Condition(tokens, pooled=read[1].text_embeds)
        if self.empty_as_zeros:
            empty = [row for row, prompt in enumerate(prompts) if not prompt]
            for part in condition.parts.values():
                part[empty] = 0
        return condition

    def _read(self, prompts: Sequence[str], tokenizer: CLIPTokenizer, encoder: Any) -> Any:
        tokens = tokenizer(
            list(prompts), padding="max_length", truncation=True, return_tensors="pt"
        )
        return encoder(tokens.input_ids.to(self.device), output_hidden_states=True)

    def _predicted(self, z: Tensor, times: Tensor, condition: Condition) -> Tensor:
        added = {"text_embeds": condition.pooled, "time_ids": self._sizes.expand(len(z), -1)}
        predicted: Tensor = self.unet(
            z, times, condition.tokens, added_cond_kwargs=added, return_dict=False
        )[0]
        return predicted


@dataclass(frozen=True)
class SDXL(StableDiffusion):
    """`empty_as_zeros`: encode the empty prompt as zeros, as in the model's training, instead of
    with the text encoders."""

    empty_as_zeros: bool = True

    def load(self) -> SDXLBackbone:
        device = pick_device(self.device)
        dtype = pick_dtype(self.dtype, device)
        parts = load_parts(self.path, self.revision, self.config, XLParts, self.variant)
        digest = self._digest(parts)
        made = SDXLBackbone(
            parts,
            self.path,
            device,
            dtype,
            digest if self.empty_as_zeros else f"{digest}-empty-prompt",
            self._size(parts),
            empty_as_zeros=self.empty_as_zeros,
        )
        return as_set(made, self.compile)
