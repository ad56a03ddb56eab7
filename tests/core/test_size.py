from __future__ import annotations

import pytest
import torch
from PIL import Image

from zerocon.core.checks import ConfigError
from zerocon.core.size import Size, chosen_size


def test_height_comes_first_as_in_tensors() -> None:
    size = Size(24, 40)
    assert torch.zeros(1, 3, *size).shape == (1, 3, 24, 40)
    assert Size.of(Image.new("RGB", (40, 24))) == Size.of_tensor(torch.zeros(3, 24, 40)) == size
    assert str(size) == "40 × 24"  # as one says it
    assert (size.is_square, Size.square(8).is_square) == (False, True)


@pytest.mark.parametrize(
    ("size", "outer", "part"),
    [
        (Size(8, 8), Size(90, 100), Size(90, 90)),
        (Size(24, 40), Size(100, 100), Size(60, 100)),
        (Size(40, 24), Size(100, 100), Size(100, 60)),
        (Size(24, 40), Size(60, 200), Size(60, 100)),
        (Size(2, 3), Size(101, 100), Size(67, 100)),  # rounded
        (Size(1, 1000), Size(3, 3), Size(1, 3)),  # never without a pixel
        (Size(512, 512), Size(7, 3), Size(3, 3)),
    ],
)
def test_the_largest_part_of_a_shape(size: Size, outer: Size, part: Size) -> None:
    assert size.within(outer) == part


def test_a_size_is_a_side_or_both() -> None:
    usual = Size.square(512)
    assert chosen_size(None, None, None, usual) == usual
    assert chosen_size(64, None, None, usual) == (64, 64)
    assert chosen_size(None, 24, 40, usual) == (24, 40)
    with pytest.raises(ConfigError, match=r"give --side, or --height and --width, not both"):
        chosen_size(64, 24, 40, usual, "--")
    with pytest.raises(ConfigError, match=r"backbone\.height and backbone\.width go together"):
        chosen_size(None, None, 40, usual)
