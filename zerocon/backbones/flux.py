"""FLUX.1: T5 reads the prompt word by word, CLIP as a whole; guidance is a number it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch import Tensor
from transformers import (
    AutoTokenizer,
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedTokenizerBase,
    T5EncoderModel,
)

from zerocon.backbones.compiling import as_set
from zerocon.backbones.loading import ModelParts, frozen, load_parts, vae_scale
from zerocon.backbones.mmdit_sites import Layout
from zerocon.backbones.sizes import check_size, size_of
from zerocon.backbones.text_encoders import CPU, TextEncoders, frozen_t5
from zerocon.backbones.transformer import (
    TransformerBackbone,
    TransformerSettings,
    check_scheduler,
    token_numbers,
)
from zerocon.core.checks import ConfigError, in_range, one_of
from zerocon.core.conditions import Condition
from zerocon.core.size import Size

T5_TOKENS = 512  # FluxPipeline's, of FLUX.1-dev; FLUX.1-schnell was trained with 256
USUAL_LATENT = 128  # FluxPipeline's: positions on a side of a latent
Guidance = Literal["embedded", "classifier_free"]
PATCH = 2  # of the latent, on a side of an image token


@dataclass
class FluxParts(ModelParts):
    """All that the pipeline has."""

    classes: ClassVar[dict[str, Any]] = {
        "vae": AutoencoderKL,
        "transformer": FluxTransformer2DModel,
        "text_encoder": CLIPTextModel,
        "tokenizer": CLIPTokenizer,
        "text_encoder_2": T5EncoderModel,
        "tokenizer_2": AutoTokenizer,
        "scheduler": FlowMatchEulerDiscreteScheduler,
    }
    example: ClassVar[str] = "flux"

    vae: AutoencoderKL
    transformer: FluxTransformer2DModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    text_encoder_2: T5EncoderModel
    tokenizer_2: PreTrainedTokenizerBase


class FluxBackbone(TransformerBackbone):
    """A condition has T5's tokens, and CLIP's pooled embedding.

    FLUX.1-dev takes the guidance scale; a condition without one is told 1. FLUX.1-schnell takes
    none.
    """

    def __init__(
        self,
        parts: FluxParts,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        fingerprint: str,
        size: Size | None = None,
        *,
        t5_tokens: int = T5_TOKENS,
        guidance: Guidance = "embedded",
        offload_text: bool = False,
        t5_8bit: bool = False,
    ) -> None:
        check_scheduler(parts.scheduler)
        per_latent = vae_scale(parts)
        size = Size(*size) if size else Size.square(USUAL_LATENT * per_latent)
        step = per_latent * PATCH
        check_size(size, step)
        self.prompt_tokens, self.start_tokens = t5_tokens, 0
        layout = Layout(
            grid=(size.height // step, size.width // step),
            text_tokens=t5_tokens,
            patch=PATCH,
            text_first=True,
            rotary=True,
        )
        super().__init__(parts, name, device, dtype, fingerprint, size, layout)
        self.time_unit = float(self.trained_times)
        self.takes_guidance = bool(self.transformer.config["guidance_embeds"])
        self.guidance_is_told = guidance == "embedded"
        if self.guidance_is_told and not self.takes_guidance:
            raise ConfigError(
                "these weights take no guidance scale, as FLUX.1-schnell's; set "
                "backbone.guidance=classifier_free, or choose backbone=flux_schnell"
            )
        self.clip_tokenizer, self.tokenizer = parts.tokenizer, parts.tokenizer_2
        rests = CPU if offload_text else device
        self.clip = frozen(parts.text_encoder, rests, dtype)
        self.t5 = frozen_t5(parts.text_encoder_2, rests, dtype, in_8=t5_8bit)
        self.encoders = TextEncoders((self.clip, self.t5), device, offload=offload_text)
        self._text_places = torch.zeros(t5_tokens, 3, device=device)
        self._image_places = image_places(layout.grid).to(device)

    def _set_times(self, scheduler: Any, steps: int) -> None:
        """Evenly from 1 to 1 / steps, shifted as the number of image tokens asks for."""
        config = scheduler.config
        if config.get("use_flow_sigmas"):
            scheduler.set_timesteps(steps, mu=self._mu(config))
            return
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=self._mu(config))

    def _mu(self, config: Any) -> float:
        """Linear in the number of image tokens: 0.5 at 256, 1.15 at 4096, if the model says no
        other."""
        few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        slope = (high - low) / (many - few)
        return self.layout.image_tokens * slope + (low - slope * few)

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Condition:
        clip_length = int(self.clip_tokenizer.model_max_length)
        whole = token_numbers(self.clip_tokenizer, prompts, clip_length).to(self.device)
        words = token_numbers(self.tokenizer, prompts, self.prompt_tokens).to(self.device)
        with self.encoders.reading():
            return Condition(self.t5(words)[0], self.clip(whole).pooler_output)

    def tokens(self, prompt: str) -> tuple[int, ...]:
        """T5's: there is an end, but no start."""
        numbers = self.tokenizer(prompt, truncation=True, max_length=self.prompt_tokens)
        return tuple(numbers.input_ids)

    def too_long(self, prompt: str) -> bool:
        return len(self.tokenizer(prompt).input_ids) > self.prompt_tokens

    def _predicted(self, z: Tensor, times: Tensor, condition: Condition) -> Tensor:
        found = self.transformer(
            hidden_states=packed(z),
            timestep=times,
            guidance=self._guidance(condition) if self.takes_guidance else None,
            pooled_projections=condition.pooled,
            encoder_hidden_states=condition.tokens,
            txt_ids=self._text_places,
            img_ids=self._image_places,
            return_dict=False,
        )[0]
        return unpacked(found, self.layout.grid)

    def _guidance(self, condition: Condition) -> Tensor:
        if condition.guidance is None:
            return torch.ones(len(condition), device=self.device)
        return condition.guidance


def packed(z: Tensor) -> Tensor:
    """A latent, [row, channel, y, x], as image tokens of 2 x 2 positions, [row, token, width]."""
    parts = z.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))  # [row, channel, y, 2, x, 2]
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpacked(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """The way back from `packed`."""
    parts = tokens.unflatten(2, (-1, PATCH, PATCH)).unflatten(1, grid)  # [row, y, x, channel, 2, 2]
    return parts.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def image_places(grid: tuple[int, int]) -> Tensor:
    """What the rotary embedding is told of each image token: 0, its line, its column."""
    lines, columns = (torch.arange(side, dtype=torch.float32) for side in grid)
    y, x = torch.meshgrid(lines, columns, indexing="ij")
    return torch.stack([torch.zeros_like(y), y, x], -1).flatten(0, 1)


@dataclass(frozen=True)
class Flux(TransformerSettings):
    """FLUX.1-dev and FLUX.1-schnell.

    `guidance`: the network is told the scale (`embedded`, FLUX.1-dev only), or each guided row has
    one with the negative condition beside it (`classifier_free`; FLUX.1-dev is told 1 in both).
    """

    t5_tokens: int = T5_TOKENS
    guidance: Guidance = "embedded"

    @property
    def guidance_is_told(self) -> bool:
        return self.guidance == "embedded"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("backbone.guidance", self.guidance, get_args(Guidance))
        in_range("backbone.t5_tokens", self.t5_tokens, 1, 512)

    def load(self) -> FluxBackbone:
        device, dtype = self._place()
        parts = load_parts(self.path, self.revision, self.config, FluxParts, self.variant)
        size = size_of(self, USUAL_LATENT * vae_scale(parts))
        digest = self._digest(parts, self.t5_tokens, T5_TOKENS)
        made = FluxBackbone(
            parts,
            self.path,
            device,
            dtype,
            digest,
            size,
            t5_tokens=self.t5_tokens,
            guidance=self.guidance,
            **self._text,
        )
        return as_set(made, self.compile)
