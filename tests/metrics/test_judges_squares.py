"""What judges of squares are shown of pictures that are not square."""

from __future__ import annotations

import math

import pytest
import torch
from metric_pictures import noise
from torch import Tensor

from zerocon.core.cases import Case
from zerocon.metrics.base import Pictures
from zerocon.metrics.encoders import PublishedClip, load_clip, load_vit, resized
from zerocon.metrics.lpips import PerceptualDistance
from zerocon.metrics.pixel import PixelDistances
from zerocon.metrics.truth import edits_done


def wide() -> Tensor:
    return noise(1, side=64)[:, :, :32]


def test_a_vit_is_shown_the_whole_picture_as_a_square() -> None:
    """Also where one side has its size already."""
    for pictures in (wide(), wide().mT, noise(1, side=96)[:, :, :32]):
        assert resized(pictures, 64).shape == (1, 3, 64, 64)
    left = torch.ones(1, 3, 32, 64)
    left[..., :32] = 0
    shown = resized(left, 64)
    assert not shown[..., :31].any()
    assert (shown[..., 33:] == 1).all()
    vit = load_vit()
    torch.testing.assert_close(vit(left).keys, vit(shown).keys)


@pytest.mark.parametrize("turned", [False, True])
def test_a_clip_is_shown_the_centre(turned: bool) -> None:
    picture = noise(1, side=128)[:, :, :64]
    changed = picture.clone()
    changed[..., :30] = 0  # beside the centre
    changed[..., 98:] = 0
    clip, centre = load_clip(), picture[..., 32:96]
    if turned:
        picture, changed, centre = picture.mT, changed.mT, centre.mT
    torch.testing.assert_close(clip.images(picture), clip.images(centre))
    torch.testing.assert_close(clip.images(changed), clip.images(centre))


def test_a_published_clip_is_shown_the_centre_too(tiny_clip: str) -> None:
    clip = PublishedClip(tiny_clip)
    torch.testing.assert_close(clip.images(wide()), clip.images(wide()[..., 16:48]))
    larger = noise(1, side=128)[:, :, :64]
    changed = larger.clone()
    changed[..., :24] = 0
    torch.testing.assert_close(clip.images(changed), clip.images(larger))


def test_distances_of_pixels_and_lpips_are_of_the_whole_picture() -> None:
    mask = torch.zeros(1, 32, 64)
    mask[..., :48] = 1
    source = wide()
    edited = source.clone()
    edited[..., 60:] = 1 - edited[..., 60:]  # in the background, which a square would not show
    cases = [Case("a", source[0], "a", "b", mask=mask)]
    pictures = Pictures.of(cases, edited)
    found = PixelDistances()(pictures) | PerceptualDistance()(pictures)
    assert found["bg_share"] == 0.25
    squares = (edited - source).double()[..., 48:].square().mean()
    assert float(found["psnr_bg"]) == pytest.approx(-10 * math.log10(float(squares)))
    assert found["lpips_bg"] > 1
    same = PerceptualDistance()(Pictures.of(cases, source))
    assert same["lpips_bg"] == 0


def test_scenes_are_not_read_from_pictures_that_are_not_square() -> None:
    case = Case("a", wide()[0], "a", "b", edit_done=lambda _: True)
    assert edits_done(Pictures.of([case], wide())).isnan().all()
