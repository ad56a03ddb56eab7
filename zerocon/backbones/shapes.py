"""The packaged models of the shapes world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zerocon.backbones.compiling import Compile, as_set, check_compile
from zerocon.backbones.loading import (
    DTYPES,
    fingerprint_of,
    load_parts,
    pick_device,
    pick_dtype,
)
from zerocon.backbones.sd3 import SD3Backbone, SD3PartsWithoutT5
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.cases import World
from zerocon.core.checks import one_of
from zerocon.core.weights import PACKAGED

GENERATOR = PACKAGED / "generator"
FLOW = PACKAGED / "flow"


@dataclass(frozen=True)
class Shapes:
    """The package's U-Net, or a retrained one in the folder `path`."""

    flow: ClassVar[bool] = False
    world: ClassVar[World] = "shapes"
    small: ClassVar[bool] = True  # one processor thread is the quickest

    path: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    compile: Compile = False

    def __post_init__(self) -> None:
        one_of("backbone.dtype", self.dtype, ("auto", *DTYPES))
        check_compile(self.compile)

    def load(self) -> StableDiffusionBackbone:
        device = pick_device(self.device)
        dtype = pick_dtype(self.dtype, device)
        parts = load_parts(self.path or str(GENERATOR))
        for module in (parts.vae, parts.unet, parts.text_encoder):
            module.float()  # stored in half precision
        made = StableDiffusionBackbone(parts, "shapes", device, dtype, fingerprint_of(parts))
        return as_set(made, self.compile)


@dataclass(frozen=True)
class ShapesFlow:
    """The package's own flow transformer, or one retrained (`path`: its folder).

    It is a small Stable Diffusion 3 without T5.
    """

    flow: ClassVar[bool] = True
    world: ClassVar[World] = "shapes"
    small: ClassVar[bool] = True

    path: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    compile: Compile = False

    def __post_init__(self) -> None:
        one_of("backbone.dtype", self.dtype, ("auto", *DTYPES))
        check_compile(self.compile)

    def load(self) -> SD3Backbone:
        device = pick_device(self.device)
        dtype = pick_dtype(self.dtype, device)
        parts = load_parts(self.path or str(FLOW), kind=SD3PartsWithoutT5)
        for module in (parts.vae, parts.transformer, parts.text_encoder, parts.text_encoder_2):
            module.float()  # stored in half precision
        made = SD3Backbone(parts, "shapes_flow", device, dtype, fingerprint_of(parts))
        return as_set(made, self.compile)
