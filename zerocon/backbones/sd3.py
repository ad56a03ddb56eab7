"""Stable Diffusion 3 and 3.5: two CLIP text encoders, and T5 or zeros in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoTokenizer,
    CLIPTextModelWithProjection,
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
from zerocon.core.checks import ConfigError, in_range
from zerocon.core.conditions import Condition
from zerocon.core.size import Size

T5_TOKENS = 256  # StableDiffusion3Pipeline's


@dataclass
class SD3PartsWithoutT5(ModelParts):
    """All but T5, whose tokens are zeros then."""

    classes: ClassVar[dict[str, Any]] = {
        "vae": AutoencoderKL,
        "transformer": SD3Transformer2DModel,
        "text_encoder": CLIPTextModelWithProjection,
        "tokenizer": CLIPTokenizer,
        "text_encoder_2": CLIPTextModelWithProjection,
        "tokenizer_2": CLIPTokenizer,
        "scheduler": FlowMatchEulerDiscreteScheduler,
    }
    example: ClassVar[str] = "sd3"

    vae: AutoencoderKL
    transformer: SD3Transformer2DModel
    text_encoder: CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer
    text_encoder_2: CLIPTextModelWithProjection
    tokenizer_2: CLIPTokenizer
    text_encoder_3: T5EncoderModel | None = None
    tokenizer_3: PreTrainedTokenizerBase | None = None


@dataclass
class SD3Parts(SD3PartsWithoutT5):
    """All of them."""

    classes: ClassVar[dict[str, Any]] = {
        **SD3PartsWithoutT5.classes,
        "text_encoder_3": T5EncoderModel,
        "tokenizer_3": AutoTokenizer,
    }


@dataclass(frozen=True)
class T5Reader:
    """The tokens behind CLIP's: there is an end, but no start."""

    tokenizer: PreTrainedTokenizerBase
    prompt_tokens: int
    start_tokens: int = 0

    def tokens(self, prompt: str) -> tuple[int, ...]:
        numbers = self.tokenizer(prompt, truncation=True, max_length=self.prompt_tokens)
        return tuple(numbers.input_ids)


class SD3Backbone(TransformerBackbone):
    """A condition has CLIP's tokens first, then T5's, and CLIP's pooled embeddings.

    Without T5 the model's pipeline gives it `t5_tokens` tokens of zeros. They are all equal and
    have no positions, so one of them that counts for all is exactly the same (`Layout.copies`).
    """

    def __init__(
        self,
        parts: SD3PartsWithoutT5,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        fingerprint: str,
        size: Size | None = None,
        *,
        t5_tokens: int = T5_TOKENS,
        offload_text: bool = False,
        t5_8bit: bool = False,
    ) -> None:
        check_scheduler(parts.scheduler)
        config, per_latent = parts.transformer.config, vae_scale(parts)
        usual = int(config["sample_size"]) * per_latent
        size = Size(*size) if size else Size.square(usual)
        step = per_latent * int(config["patch_size"])
        check_size(size, step, int(config["pos_embed_max_size"]) * step)
        self.t5_tokens = t5_tokens
        self.prompt_tokens = int(parts.tokenizer.model_max_length)
        self.start_tokens = 1
        has_t5 = parts.text_encoder_3 is not None
        layout = Layout(
            grid=(size.height // step, size.width // step),
            text_tokens=self.prompt_tokens + (t5_tokens if has_t5 else 1),
            patch=int(config["patch_size"]),
            copies=1 if has_t5 else t5_tokens,
        )
        super().__init__(parts, name, device, dtype, fingerprint, size, layout)
        self.tokenizer = parts.tokenizer
        rests = CPU if offload_text else device
        self.readers = (
            (parts.tokenizer, frozen(parts.text_encoder, rests, dtype)),
            (parts.tokenizer_2, frozen(parts.text_encoder_2, rests, dtype)),
        )
        self.t5 = None
        if has_t5:
            self.t5 = frozen_t5(parts.text_encoder_3, rests, dtype, in_8=t5_8bit)
        models = [encoder for _, encoder in self.readers]
        models += [] if self.t5 is None else [self.t5]
        self.encoders = TextEncoders(models, device, offload=offload_text)
        self.tokenizer_3 = parts.tokenizer_3
        self.behind = T5Reader(parts.tokenizer_3, t5_tokens) if parts.tokenizer_3 else None

    def _set_times(self, scheduler: Any, steps: int) -> None:
        scheduler.set_timesteps(steps)

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Condition:
        with self.encoders.reading():
            read = [self._read(prompts, *reader) for reader in self.readers]
            t5 = self._t5_tokens(prompts)
        clip = torch.cat([out.hidden_states[-2] for out in read], -1)
        padded = F.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
        pooled = torch.cat([out.text_embeds for out in read], -1)
        return Condition(torch.cat([padded, t5], 1), pooled)

    def _read(self, prompts: Sequence[str], tokenizer: CLIPTokenizer, encoder: Any) -> Any:
        numbers = token_numbers(tokenizer, prompts, self.prompt_tokens)
        return encoder(numbers.to(self.device), output_hidden_states=True)

    def _t5_tokens(self, prompts: Sequence[str]) -> Tensor:
        if self.t5 is None:  # one for all
            width = int(self.transformer.config["joint_attention_dim"])
            return torch.zeros(len(prompts), 1, width, device=self.device, dtype=self.dtype)
        numbers = token_numbers(self.tokenizer_3, prompts, self.t5_tokens)
        return self.t5(numbers.to(self.device))[0]

    def tokens(self, prompt: str) -> tuple[int, ...]:
        """CLIP's; they are the first of the condition's."""
        return tuple(self.tokenizer(prompt, truncation=True).input_ids)

    def too_long(self, prompt: str) -> bool:
        return len(self.tokenizer(prompt).input_ids) > self.prompt_tokens

    def _predicted(self, z: Tensor, times: Tensor, condition: Condition) -> Tensor:
        return self.transformer(
            hidden_states=z,
            timestep=times,
            encoder_hidden_states=condition.tokens,
            pooled_projections=condition.pooled,
            return_dict=False,
        )[0]


@dataclass(frozen=True)
class SD3(TransformerSettings):
    """Stable Diffusion 3 and 3.5. `t5=False` leaves the large text encoder out."""

    t5: bool = True
    t5_tokens: int = T5_TOKENS

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("backbone.t5_tokens", self.t5_tokens, 1, 512)
        if self.t5_8bit and not self.t5:
            raise ConfigError(
                "backbone.t5_8bit=true has no effect: backbone.t5=false leaves T5 out"
            )

    def load(self) -> SD3Backbone:
        device, dtype = self._place()
        kind = SD3Parts if self.t5 else SD3PartsWithoutT5
        parts = load_parts(self.path, self.revision, self.config, kind, self.variant)
        size = size_of(self, int(parts.transformer.config["sample_size"]) * vae_scale(parts))
        digest = self._digest(parts, self.t5_tokens, T5_TOKENS)
        made = SD3Backbone(
            parts,
            self.path,
            device,
            dtype,
            digest,
            size,
            t5_tokens=self.t5_tokens,
            **self._text,
        )
        return as_set(made, self.compile)
