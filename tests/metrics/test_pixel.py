from __future__ import annotations

import math

import pytest
import torch
from metric_pictures import batch, left_half, noise
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from zerocon.metrics.base import Pictures, ProtocolName
from zerocon.metrics.pixel import PixelDistances, masked_ssim, mse, psnr, ssim

PROTOCOLS: tuple[ProtocolName, ...] = ("masked", "published")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_identical_picture_is_infinitely_close(protocol: ProtocolName) -> None:
    a = noise(2)
    scores = PixelDistances(protocol)(batch(a, a, left_half()))
    assert scores["psnr_bg"].tolist() == [math.inf] * 2
    assert scores["mse_bg"].tolist() == [0.0] * 2
    assert scores["ssim_bg"].tolist() == pytest.approx([1.0] * 2, abs=1e-9)
    assert scores["bg_share"].tolist() == [0.5] * 2


def test_a_shift_in_brightness_has_a_known_distance() -> None:
    a = 0.5 * noise(1)
    scores = PixelDistances()(batch(a, a + 0.1, left_half()))
    assert scores["mse_bg"].item() == pytest.approx(100, rel=1e-5)
    assert scores["psnr_bg"].item() == pytest.approx(20, rel=1e-5)
    assert scores["psnr_whole"].item() == pytest.approx(20, rel=1e-5)


def test_the_published_protocol_counts_masked_pixels_as_equal() -> None:
    a = 0.5 * noise(1)
    pictures = batch(a, a + 0.1, left_half())
    masked, published = (PixelDistances(p)(pictures) for p in PROTOCOLS)
    assert published["mse_bg"].item() == pytest.approx(masked["mse_bg"].item() / 2, rel=1e-5)
    assert published["psnr_bg"].item() == pytest.approx(20 + 10 * math.log10(2), rel=1e-5)
    assert published["ssim_bg"].item() > masked["ssim_bg"].item()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_change_inside_the_mask_leaves_the_background_alone(protocol: ProtocolName) -> None:
    a, other = noise(1), noise(1, seed=1)
    mask = left_half()
    scores = PixelDistances(protocol)(batch(a, torch.where(mask > 0, other, a), mask))
    assert scores["psnr_bg"].item() == math.inf
    assert scores["ssim_bg"].item() == pytest.approx(1, abs=1e-9)
    assert scores["psnr_whole"].item() < 20


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("mask", [None, torch.ones(1, 64, 64)])
def test_nothing_to_measure_is_nan(protocol: ProtocolName, mask: torch.Tensor | None) -> None:
    scores = PixelDistances(protocol)(batch(noise(1), noise(1, seed=1), mask))
    assert all(scores[n].isnan().item() for n in ("psnr_bg", "ssim_bg", "mse_bg"))
    assert not scores["psnr_whole"].isnan().item()
    assert scores["bg_share"].isnan().item() if mask is None else scores["bg_share"].item() == 0


def test_agrees_with_torchmetrics() -> None:
    a, b = noise(3), noise(3, seed=1)
    for i in range(3):
        one, other = a[i : i + 1], b[i : i + 1]
        wanted = peak_signal_noise_ratio(other, one, data_range=1.0)
        assert psnr(mse(one, other)).item() == pytest.approx(wanted.item(), rel=1e-5)
        similar = structural_similarity_index_measure(other, one, data_range=1.0)
        assert isinstance(similar, torch.Tensor)
        assert ssim(one, other).item() == similar.item()
        everything = torch.ones(1, 1, 64, 64)
        assert masked_ssim(one, other, everything).item() == pytest.approx(similar.item(), abs=1e-5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_case_scores_the_same_alone_and_in_a_batch(protocol: ProtocolName) -> None:
    a, b = noise(4), noise(4, seed=1)
    together = PixelDistances(protocol)(batch(a, b, left_half()))
    for i in range(4):
        alone = PixelDistances(protocol)(batch(a[i : i + 1], b[i : i + 1], left_half()))
        for name, values in alone.items():
            assert values.item() == pytest.approx(together[name][i].item(), rel=1e-6)


def test_black_pictures_are_compared_too() -> None:
    black = torch.zeros(1, 3, 64, 64)
    scores = PixelDistances()(batch(black, black + 1, left_half()))
    assert scores["psnr_bg"].item() == pytest.approx(0)
    assert scores["ssim_bg"].item() == pytest.approx(1e-4, rel=1e-2)


@pytest.mark.parametrize("spoilt", [2 * noise(1), noise(1) - 0.5, noise(1) * math.nan])
def test_values_outside_the_range_are_refused(spoilt: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"edited pictures (must be in 0\.\.1|hold nan)"):
        batch(noise(1), spoilt)


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="can't be compared"):
        Pictures(
            [], noise(1), noise(1, side=32), torch.zeros(1, 1, 64, 64), torch.zeros(1, 3, 64, 64)
        )
