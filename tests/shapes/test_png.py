from __future__ import annotations

import hashlib
import io
import random

import numpy as np
import pytest
from PIL import Image

from zerocon.shapes.png import encode_png
from zerocon.shapes.render import render
from zerocon.shapes.scene import random_scene


def decoded(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (64, 64), (200, 301)])
@pytest.mark.parametrize("levels", [1, 2, 256])
def test_pil_reads_back_every_pixel(shape: tuple[int, int], levels: int) -> None:
    rng = np.random.default_rng(levels)
    pixels = rng.integers(0, levels, (*shape, 3)).astype(np.uint8)
    assert np.array_equal(decoded(encode_png(pixels)), pixels)


def test_every_run_length_is_read_back() -> None:
    rows = [[1] * n + [2] * (700 - n) for n in range(700)]
    pixels = np.repeat(np.array(rows, dtype=np.uint8)[..., None], 3, axis=2)
    pixels[..., 1] += np.arange(700, dtype=np.uint8)[:, None]
    pixels[..., 2] *= np.arange(700, dtype=np.uint8)
    assert np.array_equal(decoded(encode_png(pixels)), pixels)


def test_a_scene_is_small_and_always_the_same_bytes() -> None:
    pixels = render(random_scene(random.Random("png"), 2), 512)
    data = encode_png(pixels)
    assert np.array_equal(decoded(data), pixels)
    assert len(data) < 60_000
    assert (
        hashlib.sha256(data).hexdigest()
        == "220c1d5490d9e92db093a9d4ab292953cc86caf5e032751bc4d2232582ccc85d"
    )


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_other_arrays_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \[height, width, 3\]"):
        encode_png(bad)
