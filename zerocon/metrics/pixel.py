"""Distances between pixels: MSE, PSNR and SSIM, of the background and of the whole picture."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from zerocon.metrics.base import Column, Pictures, ProtocolName, weighted_mean, where_measured

SIGMA, WINDOW = 1.5, 11  # the Gaussian window of the SSIM paper
C1, C2 = 0.01**2, 0.03**2


def mse(a: Tensor, b: Tensor) -> Tensor:
    """[case]"""
    return (a.double() - b.double()).square().flatten(1).mean(1)


def psnr(mean_squared: Tensor) -> Tensor:
    """In dB, of pictures in 0..1; infinite where nothing differs."""
    return -10 * mean_squared.log10()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """[case]"""
    value = structural_similarity_index_measure(
        a.double(), b.double(), data_range=1.0, reduction="none"
    )
    assert isinstance(value, Tensor)
    return value.reshape(len(a))


def masked_ssim(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """SSIM whose local statistics, like its mean, know the pixels of `weight` 1 only, [case]."""
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
    channels = values.shape[1]
    offsets = torch.arange(WINDOW, dtype=values.dtype, device=values.device) - WINDOW // 2
    line = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    padded = F.pad(values, (WINDOW // 2,) * 4, mode="reflect")
    return F.conv2d(padded, kernel.expand(channels, 1, -1, -1), groups=channels)


class PixelDistances:
    """What changed where nothing should, and over the whole picture."""

    columns = (
        Column("psnr_bg", "dB", "higher", 2),
        Column("ssim_bg", "", "higher", 4),
        Column("mse_bg", "1e-4", "lower", 2),
        Column("psnr_whole", "dB", "", 2),
        Column("ssim_whole", "", "", 4),
        Column("bg_share", "", "", 3),
    )
    fingerprint = ""

    def __init__(self, protocol: ProtocolName = "masked") -> None:
        self.protocol = protocol

    def __call__(self, pictures: Pictures) -> dict[str, Tensor]:
        a, b, weight = pictures.source, pictures.edited, pictures.background
        if self.protocol == "masked":
            squared = weighted_mean((a.double() - b.double()).square(), weight)
            similar = masked_ssim(a, b, weight)
        else:  # masked pixels are black in both pictures, and count as equal
            squared = where_measured(mse(a * weight, b * weight), weight)
            similar = where_measured(ssim(a * weight, b * weight), weight)
        share = (1 - pictures.mask.double()).flatten(1).mean(1)
        return {
            "psnr_bg": psnr(squared),
            "ssim_bg": similar,
            "mse_bg": squared * 1e4,
            "psnr_whole": psnr(mse(a, b)),
            "ssim_whole": ssim(a, b),
            "bg_share": share,
        }
