"""Stable Diffusion XL: two text encoders, and a second kind of condition beside the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from zerocon.backbones.stable_diffusion import (
    Parts,
    StableDiffusion,
    StableDiffusionBackbone,
    fingerprint_of,
    frozen,
    load_parts,
    pick_device,
    pick_dtype,
)


@dataclass
class XLParts(Parts):
    """Stable Diffusion's, and a second text encoder."""

    classes: ClassVar[dict[str, Any]] = {
        **Parts.classes,
        "text_encoder_2": CLIPTextModelWithProjection,
        "tokenizer_2": CLIPTokenizer,
    }
    pipeline: ClassVar[Any] = StableDiffusionXLPipeline
    example: ClassVar[tuple[str, str]] = ("sdxl", "stabilityai/stable-diffusion-xl-base-1.0")

    text_encoder_2: CLIPTextModelWithProjection
    tokenizer_2: CLIPTokenizer


class SDXLBackbone(StableDiffusionBackbone):
    """A condition is one tensor, [case, token + 1, width]: the tokens that cross-attention reads,
    and as one more row the pooled embedding of the whole prompt, filled up with zeros.

    So whatever adds, averages or optimises conditions does it to both. Cross-attention still
    has a row for each token only.
    """

    def __init__(
        self,
        parts: XLParts,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        fingerprint: str,
        side: int | None = None,
        *,
        empty_as_zeros: bool = True,
    ) -> None:
        super().__init__(parts, name, device, dtype, fingerprint, side)
        self.empty_as_zeros = empty_as_zeros
        self.readers = (
            (parts.tokenizer, self.text_encoder),
            (parts.tokenizer_2, frozen(parts.text_encoder_2, device, dtype)),
        )
        config: Any = parts.text_encoder_2.config
        self._pooled_width = int(config.projection_dim)
        # The picture's size as asked for, where its crop begins, and its size in the end.
        self._sizes = (self.side, self.side, 0, 0, self.side, self.side)

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:
        read = [self._read(prompts, *reader) for reader in self.readers]
        tokens = torch.cat([out.hidden_states[-2] for out in read], -1)  # [case, token, width]
        pooled: Tensor = read[1].text_embeds  # [case, pooled width]
        row = F.pad(pooled, (0, tokens.shape[-1] - pooled.shape[-1]))
        cond = torch.cat([tokens, row[:, None]], 1)
        if self.empty_as_zeros:
            cond[[row for row, prompt in enumerate(prompts) if not prompt]] = 0
        return cond

    def _read(self, prompts: Sequence[str], tokenizer: CLIPTokenizer, encoder: Any) -> Any:
        tokens = tokenizer(
            list(prompts), padding="max_length", truncation=True, return_tensors="pt"
        )
        return encoder(tokens.input_ids.to(self.device), output_hidden_states=True)

    def _predicted(self, z: Tensor, time: int, cond: Tensor) -> Tensor:
        sizes = torch.tensor(self._sizes, device=z.device, dtype=z.dtype).expand(len(z), -1)
        added = {"text_embeds": cond[:, -1, : self._pooled_width], "time_ids": sizes}
        predicted: Tensor = self.unet(
            z, time, cond[:, :-1], added_cond_kwargs=added, return_dict=False
        )[0]
        return predicted


@dataclass(frozen=True)
class SDXL(StableDiffusion):
    """`empty_as_zeros`: the empty prompt is a condition of zeros, as the model was trained;
    otherwise what the text encoders make of it."""

    empty_as_zeros: bool = True

    def load(self) -> SDXLBackbone:
        device = pick_device(self.device)
        dtype = pick_dtype(self.dtype, device)
        parts = load_parts(self.path, self.revision, self.config, XLParts)
        digest = fingerprint_of(parts)
        return SDXLBackbone(
            parts,
            self.path,
            device,
            dtype,
            digest if self.empty_as_zeros else f"{digest}-empty-prompt",
            self.side,
            empty_as_zeros=self.empty_as_zeros,
        )
