"""Whether a picture looks as if it were of the shapes world."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Of the benchmark's pictures the most have 106 colours (of 16 levels each) and the fewest have
# 0.55 of their pixels equal to their neighbours; a photograph of this size has 376, and 0.35.
MOST_COLORS = 160
LEAST_FLAT = 0.45
_STEP = 16  # values of 255 that count as one colour
_EQUAL = 3  # difference up to which neighbours count as equal


def looks_like_shapes(pixels: NDArray[np.uint8]) -> bool:
    """Few colours in flat areas. `pixels` is [64, 64, 3], the size of the world's pictures."""
    whole = pixels.astype(np.int16)
    colors = len(np.unique((whole // _STEP).reshape(-1, 3), axis=0))
    down = np.abs(np.diff(whole, axis=0))[:, :-1].max(-1)
    across = np.abs(np.diff(whole, axis=1))[:-1].max(-1)
    flat = float((np.maximum(down, across) <= _EQUAL).mean())
    return colors <= MOST_COLORS and flat >= LEAST_FLAT
