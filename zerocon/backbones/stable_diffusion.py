"""Stable Diffusion 1.x and 2.x, from a folder, a single file, or the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from zerocon.backbones.compiling import Compile, Compiles, as_set, check_compile
from zerocon.backbones.loading import (
    DTYPES,
    Parts,
    fingerprint_of,
    frozen,
    load_parts,
    pick_device,
    pick_dtype,
    saving_memory,
    vae_scale,
)
from zerocon.backbones.sizes import check_settings, check_size, size_of
from zerocon.backbones.unet_sites import install
from zerocon.core.cases import World
from zerocon.core.checks import ConfigError, one_of
from zerocon.core.conditions import Condition
from zerocon.core.forward import Evaluations
from zerocon.core.levels import At, Guess, Level, vp_level, vp_level_at, vp_path
from zerocon.core.levels import Path as LevelPath
from zerocon.core.size import Size
from zerocon.core.timesteps import SPACINGS, Spacing


class StableDiffusionBackbone(Compiles):
    """The parts as one frozen `Backbone`."""

    def __init__(
        self,
        parts: Parts,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        fingerprint: str,
        size: Size | None = None,
    ) -> None:
        self.name, self.device, self.dtype, self.fingerprint = name, device, dtype, fingerprint
        # Some autoencoders overflow in half precision, and their config says so.
        careful = dtype == torch.float16 and bool(parts.vae.config.get("force_upcast"))
        self.vae = frozen(parts.vae, device, torch.float32 if careful else dtype)
        self.unet = frozen(parts.unet, device, dtype)
        if device.type == "cuda":  # the layout of its convolutions' kernels
            self.unet.to(memory_format=torch.channels_last)
        self.evaluations = Evaluations()
        self.text_encoder = frozen(parts.text_encoder, device, dtype)
        self.tokenizer = parts.tokenizer
        self.prompt_tokens = int(parts.tokenizer.model_max_length)
        self.start_tokens = 1
        self._config: dict[str, Any] = dict(parts.scheduler.config)
        self._alphas: Tensor = parts.scheduler.alphas_cumprod.double().cpu()
        self._final_alpha = float(parts.scheduler.final_alpha_cumprod)
        per_latent = vae_scale(parts)
        usual = int(self.unet.config["sample_size"]) * per_latent
        self.size = Size(*size) if size else Size.square(usual)
        # The U-Net halves the latent's sides between its levels, so they must be divisible.
        check_size(self.size, per_latent * 2 ** (len(self.unet.config["block_out_channels"]) - 1))
        grid = self.size.height // per_latent, self.size.width // per_latent
        self.taps = install(self.unet, grid)
        one_of("prediction_type", self._config["prediction_type"], ("epsilon", "v_prediction"))
        one_of("timestep_spacing", self._spacing, SPACINGS)

    def path(self, steps: int) -> LevelPath:
        return vp_path(
            self._alphas,
            steps,
            spacing=self._spacing,
            offset=int(self._config["steps_offset"]),
            distilled=int(self._config.get("original_inference_steps", 50)),
            final_alpha=self._final_alpha,
        )

    @property
    def _spacing(self) -> Spacing:
        """The spacing of timesteps; only consistency models' configs list distilled timesteps."""
        if "original_inference_steps" in self._config:
            return "consistency"
        return self._config["timestep_spacing"]

    def level(self, share: float) -> Level:
        time = min(round(share * len(self._alphas)), len(self._alphas) - 1)
        return vp_level(time, float(self._alphas[time]))

    def level_at(self, t: float) -> Level:
        return vp_level_at(self._alphas, t)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        scaled = (images * 2 - 1).to(self.device, self.vae.dtype)
        latents = self.vae.encode(scaled).latent_dist.mean * self.vae.config["scaling_factor"]
        return latents.to(self.dtype)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        scaled = latents.to(self.vae.dtype) / self.vae.config["scaling_factor"]
        decoded = self.vae.decode(scaled)
        return (decoded.sample.float() / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Condition:
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, return_tensors="pt"
        )
        return Condition(self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state)

    def tokens(self, prompt: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(prompt, truncation=True).input_ids)

    def too_long(self, prompt: str) -> bool:
        return len(self.tokenizer(prompt).input_ids) > self.tokenizer.model_max_length

    def predict(self, z: Tensor, level: At, condition: Condition) -> Guess:
        self.evaluations.count(z, condition)
        with self.taps.forward_pass():
            predicted = self._network(z, level.times(z), condition)
        if self._config["prediction_type"] == "epsilon":
            return Guess.from_noise(z, predicted, level)
        return Guess.from_v(z, predicted, level)

    def _predicted(self, z: Tensor, times: Tensor, condition: Condition) -> Tensor:
        return self.unet(z, times, condition.tokens, return_dict=False)[0]


@dataclass(frozen=True)
class StableDiffusion:
    """Where the weights are. `path` is a folder in the diffusers layout, one
    `.safetensors` file, or a hub id (then `revision` pins its commit).

    `compile`: forward passes by `torch.compile`; `auto`: on a GPU, for runs of many cases.
    """

    flow: ClassVar[bool] = False
    world: ClassVar[World] = "photographs"

    path: str
    revision: str | None = None
    config: str | None = None  # of a single file: a folder with the model's configs and tokenizer
    device: str = "auto"
    dtype: str = "auto"
    side: int | None = None  # pixels; or height and width; null: what the model was trained at
    height: int | None = None
    width: int | None = None
    compile: Compile = False
    variant: str | None = None  # fp16: the folder's files with half-precision weights
    vae_slicing: bool = False  # encode and decode a batch's pictures one by one: less memory
    vae_tiling: bool = False  # and each picture in overlapping tiles, if it is a large one

    def __post_init__(self) -> None:
        one_of("backbone.dtype", self.dtype, ("auto", *DTYPES))
        if not self.path:
            raise ConfigError(
                "backbone.path is empty; give a folder, a .safetensors file or a hub id"
            )
        check_compile(self.compile)
        check_settings(self)

    def _size(self, parts: Parts) -> Size:
        return size_of(self, int(parts.unet.config["sample_size"]) * vae_scale(parts))

    def _digest(self, parts: Parts) -> str:
        """Set up the autoencoder; return the digest of what computes."""
        return saving_memory(
            parts.vae, fingerprint_of(parts), slicing=self.vae_slicing, tiling=self.vae_tiling
        )

    def load(self) -> StableDiffusionBackbone:
        device = pick_device(self.device)
        dtype = pick_dtype(self.dtype, device)
        parts = load_parts(self.path, self.revision, self.config, variant=self.variant)
        digest = self._digest(parts)
        size = self._size(parts)
        made = StableDiffusionBackbone(parts, self.path, device, dtype, digest, size)
        return as_set(made, self.compile)
