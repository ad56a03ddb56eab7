"""Large text encoders: T5 in half precision or 8 bit, and off the device between prompts."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zerocon.backbones.loading import frozen
from zerocon.core.checks import ConfigError

CPU = torch.device("cpu")


class Int8Linear(nn.Module):
    """A linear layer whose weights are whole numbers from -127 to 127, times a scale for each row.

    They are multiplied out for every call, so that nothing but the memory they rest in is 8 bit.
    `single`: the layer computes in single precision, whatever it is given.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.single = False
        wide = linear.weight.detach().float()
        scale = wide.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
        self.register_buffer("weight", (wide / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        bias: Any = linear.bias  # may be none, whatever torch declares
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        x = x.float() if self.single else x
        weight = (self.weight.to(self.scale.dtype) * self.scale).to(x.dtype)
        return F.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))


def in_8bit(model: nn.Module) -> nn.Module:
    """The same model, every linear layer in 8 bit; all else stays."""
    linears = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    for name, linear in linears:
        holder, _, own = name.rpartition(".")
        setattr(model.get_submodule(holder), own, Int8Linear(linear))
    return model


def frozen_t5(t5: Any, device: torch.device, dtype: torch.dtype, *, in_8: bool = False) -> Any:
    """T5 for use. In float16 the last layer of each feed-forward block overflows, so it stays in
    single precision there, as in transformers' own half-precision T5."""
    model = in_8bit(t5) if in_8 else t5
    kept = {
        name: tensor.detach().float()
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point() and _stays_single(name, dtype)
    }
    ready = frozen(model, device, dtype)
    for name, tensor in kept.items():
        holder, _, own = name.rpartition(".")
        getattr(ready.get_submodule(holder), own).data = tensor.to(device)
    for name, module in ready.named_modules():
        if isinstance(module, Int8Linear):
            module.single = dtype == torch.float16 and name.endswith(".wo")
    return ready


def _stays_single(name: str, dtype: torch.dtype) -> bool:
    """The scales of 8-bit weights always, the last layers' weights in float16."""
    return name.endswith(".scale") or (dtype == torch.float16 and name.endswith(".wo.weight"))


class TextEncoders:
    """A model's text encoders. With `offload` they are on the device only while they read."""

    def __init__(self, models: Sequence[Any], device: torch.device, *, offload: bool) -> None:
        if offload and device.type == "cpu":
            raise ConfigError(
                "backbone.offload_text=true has no effect on the CPU; it frees a GPU's memory"
            )
        self.models, self.device, self.offload = models, device, offload

    @contextmanager
    def reading(self) -> Generator[None]:
        if not self.offload:
            yield
            return
        self._move(self.device)
        try:
            yield
        finally:
            self._move(CPU)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _move(self, device: torch.device) -> None:
        for model in self.models:
            model.to(device)
