"""What Stable Diffusion 3 and FLUX have in common: flow models whose network is a transformer."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from zerocon.backbones.base import BackboneError
from zerocon.backbones.compiling import Compile, Compiles, check_compile
from zerocon.backbones.loading import (
    DTYPES,
    fingerprint_of,
    frozen,
    pick_device,
    pick_dtype,
    saving_memory,
)
from zerocon.backbones.mmdit_sites import Layout, install, joint_attentions
from zerocon.backbones.sizes import check_settings
from zerocon.core.cases import World
from zerocon.core.checks import ConfigError, one_of
from zerocon.core.conditions import Condition
from zerocon.core.forward import Evaluations
from zerocon.core.levels import At, Guess, Level, Path, at_least_single, flow_level
from zerocon.core.size import Size


class TransformerBackbone(Compiles):
    """The parts as one frozen `Backbone`. Latents stay in single precision, whatever the
    network computes in: half precision loses an inversion's small steps."""

    time_unit = 1.0  # of the network's time input, in training times

    def __init__(
        self,
        parts: Any,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        fingerprint: str,
        size: Size,
        layout: Layout,
    ) -> None:
        self.name, self.device, self.dtype, self.fingerprint = name, device, dtype, fingerprint
        self.size = Size(*size)
        self.layout = layout
        # Some autoencoders overflow half precision, and say so.
        careful = dtype == torch.float16 and bool(parts.vae.config.get("force_upcast"))
        self.vae = frozen(parts.vae, device, torch.float32 if careful else dtype)
        self.transformer = frozen(parts.transformer, device, dtype)
        self.scheduler = parts.scheduler
        self.trained_times = int(parts.scheduler.config["num_train_timesteps"])
        self.evaluations = Evaluations()
        self.taps = install(self.transformer, layout)

    def path(self, steps: int) -> Path:
        """As the model's own scheduler has it."""
        if steps < 1:
            raise ConfigError(f"method.steps is {steps}; it must be at least 1")
        scheduler = copy.deepcopy(self.scheduler)
        self._set_times(scheduler, steps)
        return Path(tuple(flow_level(t, self.trained_times) for t in scheduler.sigmas.tolist()))

    @abstractmethod
    def _set_times(self, scheduler: Any, steps: int) -> None:
        """Call the scheduler's `set_timesteps` as the model's pipeline does."""

    def level(self, share: float) -> Level:
        return flow_level(share, self.trained_times)

    def level_at(self, t: float) -> Level:
        return flow_level(t, self.trained_times)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        self._check_images(images)
        scaled = (images * 2 - 1).to(self.device, self.vae.dtype)
        mean = at_least_single(self.vae.encode(scaled).latent_dist.mean)
        return (mean - shift_of(self.vae)) * self.vae.config["scaling_factor"]

    def _check_images(self, images: Tensor) -> None:
        """The sites' grids are those of one size: another would split text and image wrongly."""
        size = Size.of_tensor(images)
        if size != self.size:
            raise BackboneError(
                f"the pictures have {size.height} x {size.width} pixels, but the backbone is "
                f"set to {self.size.height} x {self.size.width} (height x width)"
            )

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        scaled = latents / self.vae.config["scaling_factor"] + shift_of(self.vae)
        decoded = self.vae.decode(scaled.to(self.vae.dtype))
        return (decoded.sample.float() / 2 + 0.5).clamp(0, 1)

    @abstractmethod
    def embed(self, prompts: Sequence[str]) -> Condition: ...

    def predict(self, z: Tensor, level: At, condition: Condition) -> Guess:
        self.evaluations.count(z, condition)
        self.layout.calls = 0
        with self.taps.forward_pass():
            times = level.times(z, self.time_unit)
            velocity = self._network(z.to(self.dtype), times, condition)
        self._check_calls()
        return Guess.from_velocity(z, velocity.to(z.dtype), level)

    def _check_calls(self) -> None:
        """Text tokens that stand for several count as one if diffusers runs its own attention."""
        wanted = joint_attentions(self.transformer)
        if self.layout.copies > 1 and self.layout.calls != wanted:
            raise BackboneError(
                f"zerocon's joint attention ran {self.layout.calls} times in a forward pass, not "
                f"{wanted} times: another attention processor was set, or this version of "
                "diffusers calls it in another way"
            )


@dataclass(frozen=True)
class TransformerSettings:
    """Where the weights are: `path` is a folder in the diffusers layout, one `.safetensors` file,
    or a hub id (then `revision` pins its commit).

    The size in pixels is `side`, or `height` and `width`; none of them: what the model was
    trained at.
    """

    flow: ClassVar[bool] = True
    world: ClassVar[World] = "photographs"

    path: str
    revision: str | None = None
    config: str | None = None  # of a single file: a folder with the model's configs and tokenizers
    device: str = "auto"
    dtype: str = "auto"
    side: int | None = None
    height: int | None = None
    width: int | None = None
    variant: str | None = None  # fp16: the folder's files with half-precision weights
    vae_slicing: bool = False  # encode and decode a batch's pictures one by one: less memory
    vae_tiling: bool = False  # and each picture in overlapping tiles, if it is a large one
    offload_text: bool = False  # the text encoders are on the GPU only while they read prompts
    t5_8bit: bool = False  # T5's weights in 8 bit: half as much memory as in half precision
    compile: Compile = False  # forward passes by `torch.compile`; auto: on a GPU, for many cases

    def __post_init__(self) -> None:
        one_of("backbone.dtype", self.dtype, ("auto", *DTYPES))
        if not self.path:
            raise ConfigError(
                "backbone.path is empty; give a folder, a .safetensors file or a hub id"
            )
        check_compile(self.compile)
        check_settings(self)

    @property
    def _text(self) -> dict[str, Any]:
        """How a backbone is to hold its text encoders."""
        return {"offload_text": self.offload_text, "t5_8bit": self.t5_8bit}

    def _digest(self, parts: Any, t5_tokens: int, usual_tokens: int) -> str:
        """Of the weights, and of what else numbers depend on."""
        digest = saving_memory(
            parts.vae, fingerprint_of(parts), slicing=self.vae_slicing, tiling=self.vae_tiling
        )
        if t5_tokens != usual_tokens:
            digest += f"-{t5_tokens}-tokens"
        return f"{digest}-t5-8bit" if self.t5_8bit else digest

    def _place(self) -> tuple[torch.device, torch.dtype]:
        """Where the network runs, and what it computes in."""
        device = pick_device(self.device)
        return device, pick_dtype(self.dtype, device)


def token_numbers(tokenizer: Any, prompts: Sequence[str], length: int) -> Tensor:
    """The prompts' tokens, cut or padded to the same length, [prompt, token]."""
    tokens = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    )
    return tokens.input_ids


def shift_of(vae: Any) -> float:
    return float(vae.config.get("shift_factor") or 0.0)


def check_scheduler(scheduler: Any) -> None:
    """Refuse what would not walk from noise to picture by Euler's rule."""
    for setting in ("invert_sigmas", "stochastic_sampling"):
        if scheduler.config.get(setting):
            raise ConfigError(
                f"the backbone's scheduler has {setting}, which no sampler here knows"
            )
