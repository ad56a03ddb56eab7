"""Tensors and picture files: every byte comes back, and a case shows what it has."""

from __future__ import annotations

import numpy as np
import torch

from zerocon.core.cases import Case
from zerocon.core.pictures import case_pictures, from_uint8, to_uint8


def test_all_bytes_come_back() -> None:
    pixels = np.arange(2 * 8 * 16 * 3, dtype=np.uint8).reshape(2, 8, 16, 3)
    images = from_uint8(pixels)
    assert images.shape == (2, 3, 8, 16)
    assert images[0, 1, 0, 0] == 1 / 255  # the first pixel's green
    assert (to_uint8(images) == pixels).all()


def test_values_between_bytes_are_rounded() -> None:
    shares = torch.tensor([0.0, 0.4, 0.6, 254.6, 255.0]).div(255).half().double()
    assert to_uint8(shares.expand(1, 3, 1, 5))[0, 0, :, 0].tolist() == [0, 0, 1, 255, 255]


def test_a_case_shows_what_it_has() -> None:
    image = torch.rand(3, 4, 4)
    alone = Case("a", image, "", "")
    assert set(case_pictures(alone)) == {"source"}
    whole = Case("a", image, "", "", mask=torch.ones(1, 4, 4), ground_truth=1 - image)
    shown = case_pictures(whole)
    assert {name: picture.size for name, picture in shown.items()} == dict.fromkeys(
        ("source", "truth", "mask"), (4, 4)
    )
    assert (np.asarray(shown["mask"]) == 255).all()
    assert (np.asarray(shown["source"]) == to_uint8(image[None])[0]).all()
    assert (np.asarray(shown["truth"]) == to_uint8(1 - image[None])[0]).all()
