"""LPIPS of the background, the edited region and the whole picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from lpips import LPIPS, normalize_tensor
from torch import Tensor
from torch.nn import functional as F

from zerocon.core.cases import World
from zerocon.core.checks import ConfigError
from zerocon.core.size import Size
from zerocon.core.weights import (
    check,
    file_fingerprint,
    folder_fingerprint,
    load_strictly,
    module_fingerprint,
    read_published_pickle,
    read_tensors,
)
from zerocon.metrics import packaged
from zerocon.metrics.base import (
    Area,
    Column,
    Pictures,
    ProtocolName,
    check_range,
    chosen,
    weighted_mean,
    where_measured,
)
from zerocon.metrics.encoders import on

Net = Literal["shapes", "squeeze", "alex", "vgg"]
PublishedNet = Literal["squeeze", "alex", "vgg"]
MOVED = "0..1, moved to -1..1"
TRUNKS = {"squeeze": "squeezenet1_1", "alex": "alexnet", "vgg": "vgg16"}  # torchvision's names
_DOWNLOAD = {"squeeze": "judges", "alex": "alexnet", "vgg": "vgg16"}
NETWORKS = {"squeeze": "SqueezeNet", "alex": "AlexNet", "vgg": "VGG16"}


@dataclass(frozen=True, eq=False)
class LpipsJudge:
    """An LPIPS with its fingerprint and title."""

    model: LPIPS
    fingerprint: str
    title: str


@torch.no_grad()
def lpips_features(model: LPIPS, pictures: Tensor) -> list[Tensor]:
    """Each layer's features of pictures in 0..1, normalised at every position."""
    check_range("the pictures for LPIPS", pictures)
    model = on(model, pictures.device)
    layers = model.net(model.scaling_layer(2 * pictures.float() - 1))
    return [normalize_tensor(layer) for layer in layers]


@torch.no_grad()
def lpips_distance(model: LPIPS, a: list[Tensor], b: list[Tensor]) -> Tensor:
    """The distance between features, [case]."""
    return sum(
        (layer.double().flatten(1).mean(1) for layer in _differences(model, a, b)),
        start=torch.zeros(len(a[0]), dtype=torch.float64, device=a[0].device),
    )


@torch.no_grad()
def lpips_map(model: LPIPS, a: list[Tensor], b: list[Tensor], size: Size) -> Tensor:
    """The distance between features at each pixel, [case, 1, y, x]."""
    total = torch.zeros(len(a[0]), 1, *size, device=a[0].device)
    for layer in _differences(model, a, b):
        total += F.interpolate(layer, size, mode="bilinear")
    return total


def _differences(model: LPIPS, a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    """Each layer's distance at each position, [case, 1, height, width]."""
    return [head((x - y).square()) for x, y, head in zip(a, b, model.lins, strict=True)]


def lpips_from(net: PublishedNet, trunk: Path) -> LPIPS:
    """The published LPIPS: its package's heads on an ImageNet backbone.

    `trunk` is a file (`.safetensors` or `.pth`) with torchvision's state of the backbone
    (squeezenet1_1, alexnet or vgg16).
    """
    model = LPIPS(net=net, pnet_rand=True, verbose=False)
    state = trunk_state(trunk)
    # lpips groups torchvision's layers, but keeps their numbers.
    names = {ours: f"features.{ours.split('.', 1)[1]}" for ours in model.net.state_dict()}
    known = {ours: state[theirs] for ours, theirs in names.items() if theirs in state}
    what = f"LPIPS's {NETWORKS[net]}"
    unused = state.keys() - set(names.values())
    check(what, trunk, unexpected=unused, harmless=("classifier.*",))
    load_strictly(model.net, known, what, trunk, original=names)
    return packaged.channels_last(model.eval().requires_grad_(False))


def trunk_state(file: Path) -> dict[str, Tensor]:
    """Load a backbone's state, also `.pth`, as torchvision publishes no other files."""
    if file.suffix == ".pth":
        return read_published_pickle(file, "LPIPS")
    return read_tensors(file, "LPIPS")


def trunk_file(net: PublishedNet, path: Path | None) -> Path:
    """The file with the backbone's weights: the given one, or the one in torchvision's cache."""
    if path is None:
        known = sorted(Path(torch.hub.get_dir(), "checkpoints").glob(f"{TRUNKS[net]}-*.pth"))
        if known:
            return known[0]
    if path is None or not path.is_file():
        place = "is null" if path is None else f"is {path}, where there is no file"
        raise ConfigError(
            f"metrics.lpips.path {place}; metrics.lpips.net={net} needs {NETWORKS[net]}'s weights. "
            f"Nothing is downloaded by itself: `zerocon download {_DOWNLOAD[net]}` fetches them"
        )
    return path


class PerceptualDistance:
    """LPIPS in 1e-3. `net="shapes"`: the shapes world's; `"squeeze"`, …: a published one.

    `lpips_black` is pix2pix-zero's background LPIPS, with the region black in both pictures. With
    the published protocol, `lpips_bg` is the same; with the masked one, the region is filled from
    the source and the average is over the background only.
    """

    known = (
        Column("lpips_bg", "1e-3", "lower", 1, "background", MOVED),
        Column("lpips_whole", "1e-3", "", 1, "whole", MOVED),
        Column("lpips_edited", "1e-3", "", 1, "edited", MOVED),
        Column("lpips_black", "1e-3", "lower", 1, "background", MOVED),
    )
    default = ("lpips_bg", "lpips_whole")

    def __init__(
        self,
        net: Net = "shapes",
        path: Path | None = None,
        protocol: ProtocolName = "masked",
        columns: tuple[str, ...] | None = None,
        model: LPIPS | None = None,
    ) -> None:
        self.protocol = protocol
        judge = given_lpips(model) if model else lpips_judge(net, path)
        self.model, self.fingerprint = judge.model, judge.fingerprint
        self.columns = chosen(self.known, columns, self.default, judge)

    @staticmethod
    def world_of(net: Net = "shapes", **_: object) -> World:
        return world_of_net(net)

    def __call__(self, pictures: Pictures) -> dict[str, Tensor]:
        return {column.name: 1e3 * self._distance(column, pictures) for column in self.columns}

    def _distance(self, column: Column, pictures: Pictures) -> Tensor:
        if column.area == "whole":
            source = shared_features(self.model, pictures, "source")
            edited = shared_features(self.model, pictures, "edited")
            return lpips_distance(self.model, source, edited)
        if self.protocol == "published" or column.name == "lpips_black":
            return self._blacked_out(column.area, pictures)
        return self._within(column.area, pictures)

    def _blacked_out(self, area: Area, pictures: Pictures) -> Tensor:
        """The distance with everything outside `area` black in both pictures."""

        def compute() -> Tensor:
            weight = pictures.weight(area)
            a, b = (
                lpips_features(self.model, x * weight) for x in (pictures.source, pictures.edited)
            )
            return where_measured(lpips_distance(self.model, a, b), weight)

        return pictures.once(self, f"{area} on black", compute)

    def _within(self, area: Area, pictures: Pictures) -> Tensor:
        # Receptive fields reach beyond the area: without the source's pixels outside, changes
        # there would count.
        weight = pictures.weight(area)
        kept = torch.where(weight > 0, pictures.edited, pictures.source)
        source = shared_features(self.model, pictures, "source")
        edited = lpips_features(self.model, kept)
        return weighted_mean(lpips_map(self.model, source, edited, Size.of_tensor(kept)), weight)


def shared_features(
    model: LPIPS, pictures: Pictures, which: Literal["source", "edited"]
) -> list[Tensor]:
    """Features of the source or the edited pictures, computed once per batch."""
    shown: Tensor = getattr(pictures, which)
    return pictures.once(model, which, lambda: lpips_features(model, shown))


@cache
def lpips_judge(net: Net, path: Path | None) -> LpipsJudge:
    path = None if path is None else Path(path)
    if net == "shapes":
        digest = folder_fingerprint(path or packaged.LPIPS_FOLDER)
        return LpipsJudge(packaged.load_lpips(path), digest, "LPIPS SqueezeNet of the shapes world")
    trunk = trunk_file(net, path)
    model = lpips_from(net, trunk)
    digest = module_fingerprint(model) if path is None else file_fingerprint(trunk)
    return LpipsJudge(model, digest, f"LPIPS {NETWORKS[net]}")


def given_lpips(model: LPIPS) -> LpipsJudge:
    return LpipsJudge(model, module_fingerprint(model), "LPIPS given in Python")


def world_of_net(net: Net) -> World:
    """The judge's world; the published ones were trained on ImageNet's photographs."""
    return "shapes" if net == "shapes" else "photographs"
