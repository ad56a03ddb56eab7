"""Pixel distances: MSE, PSNR and SSIM of the background, the region and the whole picture."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from zerocon.metrics.base import (
    Area,
    Column,
    Pictures,
    ProtocolName,
    chosen,
    weighted_mean,
    where_measured,
)

SIGMA, WINDOW = 1.5, 11  # the Gaussian window of the SSIM paper
BELL = [math.exp(-((place - WINDOW // 2) ** 2) / (2 * SIGMA**2)) for place in range(WINDOW)]
GAUSS = [height / sum(BELL) for height in BELL]
C1, C2 = 0.01**2, 0.03**2


def mse(a: Tensor, b: Tensor) -> Tensor:
    """[case]"""
    return (a.double() - b.double()).square().flatten(1).mean(1)


def psnr(mean_squared: Tensor) -> Tensor:
    """PSNR in dB, for pictures in 0..1; infinite if they are equal."""
    return -10 * mean_squared.log10()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """SSIM in the pictures' precision, [case]."""
    value = structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")
    assert isinstance(value, Tensor)
    return value.reshape(len(a)).double()


def masked_ssim(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """SSIM with local statistics and mean only over pixels of `weight` 1, [case]."""
    a, b, weight = a.double(), b.double(), weight.double()
    share = _blurred(weight).clamp(min=1e-12)

    def mean(values: Tensor) -> Tensor:
        return _blurred(values * weight) / share

    mean_a, mean_b = mean(a), mean(b)
    var_a = (mean(a * a) - mean_a * mean_a).clamp(min=0)
    var_b = (mean(b * b) - mean_b * mean_b).clamp(min=0)
    covariance = mean(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a * mean_a + mean_b * mean_b + C1)
    contrast = (2 * covariance + C2) / (var_a + var_b + C2)
    return weighted_mean(luminance * contrast, weight)


def _blurred(values: Tensor) -> Tensor:
    """Blur with the Gaussian window as two one-dimensional filters."""
    padded = F.pad(values, (WINDOW // 2,) * 4, mode="reflect")
    return _slid(_slid(padded, -2), -1)


def _slid(values: Tensor, dim: int) -> Tensor:
    """Filter along one axis as a sum of shifted pictures: torch's convolution is about ten times
    slower in double precision."""
    length = values.shape[dim] - WINDOW + 1
    total = values.narrow(dim, 0, length) * GAUSS[0]
    for shift in range(1, WINDOW):
        total.add_(values.narrow(dim, shift, length), alpha=GAUSS[shift])
    return total


class PixelDistances:
    """Changes in the background, in the edited region, and over the whole picture."""

    known = (
        Column("psnr_bg", "dB", "higher", 2, "background"),
        Column("ssim_bg", "", "higher", 4, "background"),
        Column("mse_bg", "1e-4", "lower", 2, "background"),
        Column("psnr_whole", "dB", "", 2),
        Column("ssim_whole", "", "", 4),
        Column("mse_whole", "1e-4", "", 2),
        Column("psnr_edited", "dB", "", 2, "edited"),
        Column("ssim_edited", "", "", 4, "edited"),
        Column("mse_edited", "1e-4", "", 2, "edited"),
        Column("bg_share", "", "", 3, "background"),
        Column("edited_share", "", "", 3, "edited"),
    )
    default = ("psnr_bg", "ssim_bg", "mse_bg", "psnr_whole", "ssim_whole", "bg_share")
    fingerprint = ""

    def __init__(
        self, protocol: ProtocolName = "masked", columns: tuple[str, ...] | None = None
    ) -> None:
        self.protocol = protocol
        self.columns = chosen(self.known, columns, self.default)

    def __call__(self, pictures: Pictures) -> dict[str, Tensor]:
        return {column.name: self._value(column, pictures) for column in self.columns}

    def _value(self, column: Column, pictures: Pictures) -> Tensor:
        if column.name.endswith("_share"):
            return share(pictures, column.area)
        if column.name.startswith("ssim"):
            return self._similarity(pictures, column.area)
        squared = pictures.once(self, column.area, lambda: self._squared(pictures, column.area))
        return squared * 1e4 if column.name.startswith("mse") else psnr(squared)

    def _squared(self, pictures: Pictures, area: Area) -> Tensor:
        a, b, weight = pictures.source, pictures.edited, pictures.weight(area)
        if self.protocol == "masked":
            return weighted_mean((a.double() - b.double()).square(), weight)
        # Pixels outside the area are black in both pictures and count as equal.
        return where_measured(mse(a * weight, b * weight), weight)

    def _similarity(self, pictures: Pictures, area: Area) -> Tensor:
        a, b, weight = pictures.source, pictures.edited, pictures.weight(area)
        if self.protocol == "published":  # in single precision; flat pictures show the difference
            return where_measured(ssim((a * weight).float(), (b * weight).float()), weight)
        return masked_ssim(a, b, weight)


def share(pictures: Pictures, area: Area) -> Tensor:
    """The share of the picture in `area`; nan without a mask, [case]."""
    region = pictures.mask.double().flatten(1).mean(1)
    return region if area == "edited" else 1 - region
