"""LPIPS, of the background and of the whole picture."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from lpips import LPIPS, normalize_tensor
from torch import Tensor
from torch.nn import functional as F

from zerocon.metrics.base import Column, Pictures, ProtocolName, weighted_mean, where_measured
from zerocon.shapes import evaluators
from zerocon.shapes.packaged import file_fingerprint


@torch.no_grad()
def lpips_distance(model: LPIPS, a: Tensor, b: Tensor) -> Tensor:
    """Of pictures in 0..1, [case]."""
    return model.to(a.device)(a.float(), b.float(), normalize=True).flatten()


@torch.no_grad()
def lpips_map(model: LPIPS, a: Tensor, b: Tensor) -> Tensor:
    """The distance at each pixel, of pictures in 0..1, [case, 1, side, side]."""
    model = model.to(a.device)
    features = [model.net(model.scaling_layer(2 * x.float() - 1)) for x in (a, b)]
    total = torch.zeros_like(a[:, :1], dtype=torch.float32)
    for first, second, head in zip(*features, model.lins, strict=True):
        difference = (normalize_tensor(first) - normalize_tensor(second)).square()
        total += F.interpolate(head(difference), a.shape[2:], mode="bilinear")
    return total


def squeeze_from(trunk: Path | None) -> LPIPS:
    """The published LPIPS with SqueezeNet: the package's heads on ImageNet's backbone.

    `trunk` is torchvision's squeezenet1_1 state as a file (`.safetensors` or `.pth`);
    without it torchvision looks in its own cache and downloads what is missing.
    """
    model = LPIPS(net="squeeze", pnet_rand=trunk is not None, verbose=False)
    if trunk is not None:
        state = evaluators.read_state(trunk)
        places = {name.split(".", 1)[1]: name for name in model.net.state_dict()}
        trunk_only = {k.removeprefix("features."): v for k, v in state.items() if "features." in k}
        kept = {places[name]: value for name, value in trunk_only.items()}
        model.net.load_state_dict(kept)
    return model.eval().requires_grad_(False)


class PerceptualDistance:
    """Distances in 1e-3. `net="shapes"`: the shapes world's own; `"squeeze"`: the published one."""

    columns = (
        Column("lpips_bg", "1e-3", "lower", 1),
        Column("lpips_whole", "1e-3", "", 1),
    )

    def __init__(
        self,
        net: Literal["shapes", "squeeze"] = "shapes",
        path: Path | None = None,
        protocol: ProtocolName = "masked",
        model: LPIPS | None = None,
    ) -> None:
        self.protocol = protocol
        self.model, self.fingerprint = lpips_model(net, path) if model is None else (model, "given")

    def __call__(self, pictures: Pictures) -> dict[str, Tensor]:
        return {
            "lpips_bg": 1e3 * self._background(pictures),
            "lpips_whole": 1e3
            * lpips_distance(self.model, pictures.source, pictures.edited).double(),
        }

    def _background(self, pictures: Pictures) -> Tensor:
        a, b, weight = pictures.source, pictures.edited, pictures.background
        if self.protocol == "masked":
            # A feature sees its surroundings: without the source's pixels in the region,
            # the edit itself would count as a change of the background next to it.
            b = torch.where(weight > 0, b, a)
            return weighted_mean(lpips_map(self.model, a, b), weight)
        return where_measured(lpips_distance(self.model, a * weight, b * weight), weight)


def lpips_model(net: Literal["shapes", "squeeze"], path: Path | None) -> tuple[LPIPS, str]:
    """(the model, its fingerprint)"""
    path = None if path is None else Path(path)
    if net == "shapes":
        return evaluators.load_lpips(path), evaluators.fingerprint(path or evaluators.LPIPS_FOLDER)
    return squeeze_from(path), "squeeze" if path is None else file_fingerprint(path)
