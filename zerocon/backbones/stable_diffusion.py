"""Stable Diffusion 1.x and 2.x, from a folder, a single file, or the hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from zerocon.backbones.base import BackboneError
from zerocon.backbones.unet_sites import install
from zerocon.core.checks import ConfigError, in_range, one_of
from zerocon.core.conditions import Condition
from zerocon.core.forward import Evaluations
from zerocon.core.levels import Guess, Level, vp_level, vp_path
from zerocon.core.levels import Path as LevelPath

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


@dataclass
class Parts:
    """The models that Stable Diffusion is made of, each by its folder's name."""

    classes: ClassVar[dict[str, Any]] = {
        "vae": AutoencoderKL,
        "unet": UNet2DConditionModel,
        "text_encoder": CLIPTextModel,
        "tokenizer": CLIPTokenizer,
        "scheduler": DDIMScheduler,
    }
    pipeline: ClassVar[Any] = StableDiffusionPipeline
    example: ClassVar[tuple[str, str]] = ("sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5")

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler

    @property
    def modules(self) -> list[Any]:
        """Whatever has weights."""
        return [part for part in vars(self).values() if isinstance(part, nn.Module)]


P = TypeVar("P", bound=Parts)


class StableDiffusionBackbone:
    """The parts as one frozen `Backbone`."""

    def __init__(
        self,
        parts: Parts,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        fingerprint: str,
        side: int | None = None,
    ) -> None:
        self.name, self.device, self.dtype, self.fingerprint = name, device, dtype, fingerprint
        # Some autoencoders overflow half precision, and say so.
        careful = dtype == torch.float16 and bool(parts.vae.config.get("force_upcast"))
        self.vae = frozen(parts.vae, device, torch.float32 if careful else dtype)
        self.unet = frozen(parts.unet, device, dtype)
        self.evaluations = Evaluations()
        self.text_encoder = frozen(parts.text_encoder, device, dtype)
        self.tokenizer = parts.tokenizer
        self._config: dict[str, Any] = dict(parts.scheduler.config)
        self._alphas: Tensor = parts.scheduler.alphas_cumprod.double().cpu()
        self._final_alpha = float(parts.scheduler.final_alpha_cumprod)
        per_latent = 2 ** (len(self.vae.config["block_out_channels"]) - 1)
        self.side = side or int(self.unet.config["sample_size"]) * per_latent
        self.latent_side = self.side // per_latent
        self.taps = install(self.unet, (self.latent_side, self.latent_side))
        # The U-Net halves the latent between its levels, so each half must be whole.
        step = per_latent * 2 ** (len(self.unet.config["block_out_channels"]) - 1)
        if self.side % step:
            raise ConfigError(f"backbone.side is {self.side}; it must be a multiple of {step}")
        one_of("prediction_type", self._config["prediction_type"], ("epsilon", "v_prediction"))

    def path(self, steps: int) -> LevelPath:
        return vp_path(
            self._alphas,
            steps,
            offset=int(self._config["steps_offset"]),
            final_alpha=self._final_alpha,
        )

    def level(self, share: float) -> Level:
        time = min(round(share * len(self._alphas)), len(self._alphas) - 1)
        return vp_level(time, float(self._alphas[time]))

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

    def predict(self, z: Tensor, level: Level, condition: Condition) -> Guess:
        self.evaluations.forward += len(z)
        asked = (z, *condition.parts.values())
        if torch.is_grad_enabled() and any(part.requires_grad for part in asked):
            self.evaluations.backward += len(z)
        predicted = self._predicted(z, level.time, condition)
        if self._config["prediction_type"] == "epsilon":
            return Guess.from_noise(z, predicted, level)
        return Guess.from_v(z, predicted, level)

    def _predicted(self, z: Tensor, time: float, condition: Condition) -> Tensor:
        return self.unet(z, time, condition.tokens, return_dict=False)[0]


def frozen(module: Any, device: torch.device, dtype: torch.dtype) -> Any:
    return nn.Module.to(module, device, dtype).requires_grad_(False).eval()


@dataclass(frozen=True)
class StableDiffusion:
    """Where the weights are. `path` is a folder in the diffusers layout, one
    `.safetensors` file, or a hub id (then `revision` pins its commit)."""

    flow: ClassVar[bool] = False

    path: str
    revision: str | None = None
    config: str | None = None  # of a single file: a folder with the model's configs and tokenizer
    device: str = "auto"
    dtype: str = "auto"
    side: int | None = None  # pixels; null: the size the model was trained at

    def __post_init__(self) -> None:
        one_of("backbone.dtype", self.dtype, ("auto", *DTYPES))
        if not self.path:
            raise ConfigError(
                "backbone.path is empty; give a folder, a .safetensors file or a hub id"
            )
        if self.side is not None:
            in_range("backbone.side", self.side, 8)

    def load(self) -> StableDiffusionBackbone:
        device = pick_device(self.device)
        dtype = pick_dtype(self.dtype, device)
        parts = load_parts(self.path, self.revision, self.config)
        digest = fingerprint_of(parts)
        return StableDiffusionBackbone(parts, self.path, device, dtype, digest, self.side)


def pick_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"backbone.device is {name!r}: {error}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"backbone.device is {name!r}, but this machine has no usable CUDA device"
        )
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return DTYPES[name]


def load_parts(
    path: str, revision: str | None = None, config: str | None = None, kind: type[P] = Parts
) -> P:
    """Load from whichever of the three kinds of place `path` names."""
    place = Path(path).expanduser()
    if place.is_dir():
        return _from_pretrained(kind, str(place), None)
    if place.suffix == ".safetensors":
        return _from_single_file(kind, place, config)
    if place.exists() or path.startswith((".", "/", "~")) or path.count("/") != 1:
        reason = "it is no folder, no .safetensors file and no hub id"
        raise BackboneError(_missing(kind, path, reason))
    if revision is None:
        raise ConfigError(
            f"backbone.path={path} is a hub id; pin its commit with backbone.revision=<commit>"
        )
    return _from_pretrained(kind, path, revision)


def _from_pretrained(kind: type[P], path: str, revision: str | None) -> P:
    def part(name: str, cls: Any) -> Any:
        options: dict[str, Any] = {"subfolder": name, "revision": revision}
        options |= {"use_safetensors": True} if issubclass(cls, nn.Module) else {}
        options |= {"low_cpu_mem_usage": False} if issubclass(cls, ModelMixin) else {}
        loader: Any = cls
        return loader.from_pretrained(path, **options)

    try:
        return kind(**{name: part(name, cls) for name, cls in kind.classes.items()})
    except (OSError, ValueError) as error:
        raise BackboneError(_missing(kind, path, str(error).splitlines()[0])) from error


def _from_single_file(kind: type[P], file: Path, config: str | None) -> P:
    if not file.is_file():
        raise BackboneError(_missing(kind, str(file), "there is no such file"))
    checker = {"safety_checker": None} if kind is Parts else {}
    try:
        pipe: Any = kind.pipeline.from_single_file(
            str(file), config=config, low_cpu_mem_usage=False, **checker
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        if config is None:
            reason += (
                "; a single file holds weights only: without a network, point backbone.config at a "
                "folder with the model's config files and tokenizer"
            )
        raise BackboneError(_missing(kind, str(file), reason)) from error
    parts: dict[str, Any] = {name: getattr(pipe, name) for name in kind.classes}
    parts["scheduler"] = DDIMScheduler.from_config(pipe.scheduler.config)
    return kind(**parts)


def _missing(kind: type[Parts], path: str, reason: str) -> str:
    name, model = kind.example
    return (
        f"the backbone's weights can't be loaded from {path!r}: {reason}\n"
        f"Download the model in the diffusers layout (folders {', '.join(kind.classes)}) "
        "on a machine with a network, for example\n"
        f"  hf download {model} --local-dir {name}\n"
        f"then point at it: backbone={name} backbone.path={name}. "
        "Without any download, backbone=shapes works."
    )


def fingerprint_of(parts: Parts) -> str:
    """A digest of every weight and of the scheduler: the same numbers, wherever they lay."""
    said = {k: v for k, v in dict(parts.scheduler.config).items() if not k.startswith("_")}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    for module in parts.modules:
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
