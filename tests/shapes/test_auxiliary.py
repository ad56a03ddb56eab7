"""Auxiliary heads: their labels and weights, and that the denoiser stays the same."""

from __future__ import annotations

from dataclasses import replace

import torch

from zerocon.shapes.scene import COLORS, SHAPES, Scene, Thing
from zerocon.shapes.train.auxiliary import IGNORED, SIZES, PositionClasses, WithHeads
from zerocon.shapes.train.unet import build

LEFT = Thing("heart", "blue", "plain", "big", "solid", "tilted", 0.25, 0.5)
RIGHT = Thing("circle", "red", "striped", "small", "solid", "upright", 0.75, 0.5)
SCENES = [
    Scene((LEFT, RIGHT), "beach", "night", 0.5),
    Scene((RIGHT,), "gray", "photo", 0.5),
]


def test_labels_lie_where_the_things_are() -> None:
    labels = PositionClasses(SCENES).labels(torch.tensor([0, 1]), 16)
    assert labels.shape == (2, len(SIZES), 16, 16)
    there, shape, color = labels[0, 0], labels[0, 1], labels[0, 2]
    assert there[8, 4] == there[8, 12] == 1
    assert there[0, 0] == 0
    assert shape[8, 4] == SHAPES.index("heart")
    assert shape[8, 12] == SHAPES.index("circle")
    assert color[8, 12] == COLORS.index("red")
    assert shape[0, 0] == color[0, 8] == IGNORED
    # A radius of 0.14 sides is 2.24 positions of 16: about π r² of them.
    assert 12 <= int(labels[1, 0].sum()) <= 20
    assert labels[1, 1, 8, 4] == IGNORED  # the second scene has nothing on the left
    assert labels[0, -1].unique().numel() == labels[0, -2].unique().numel() == 1


def test_positions_near_things_weigh_more_and_the_mean_weight_is_one() -> None:
    weight = PositionClasses(SCENES).weights(torch.tensor([0, 1]), 16)
    torch.testing.assert_close(weight.mean((1, 2, 3)), torch.ones(2))
    assert weight[0, 0, 8, 12] > weight[0, 0, 8, 4] > weight[0, 0, 0, 0]  # small, big, nothing
    assert weight[1, 0, 8, 4] == weight[1, 0, 0, 0]  # the second scene has nothing on the left


def test_scenes_with_hard_shapes_are_drawn_more_often() -> None:
    crosses = [replace(LEFT, shape="cross"), replace(RIGHT, shape="cross")]
    scenes = [*SCENES, Scene((crosses[0], RIGHT), "gray", "photo", 0.5)]
    scenes.append(Scene(tuple(crosses), "gray", "photo", 0.5))
    assert PositionClasses(scenes).odds().tolist() == [1, 1, 3, 9]


def test_heads_leave_the_network_as_it_was() -> None:
    unet = build()
    names = set(unet.state_dict())
    with_heads = WithHeads(unet, [(unet.up_blocks[1], 128), (unet.up_blocks[2], 96)])
    with_heads(torch.randn(2, 4, 16, 16), torch.tensor([5, 900]), torch.randn(2, 77, 96))
    auxiliary = with_heads.loss(PositionClasses(SCENES), torch.tensor([0, 1]))
    auxiliary.backward()
    assert auxiliary > 5  # an untrained head knows nothing
    assert unet.conv_in.weight.grad.abs().max() > 0  # gradients reach the features
    bare = with_heads.without_heads()
    assert set(bare.state_dict()) == names
    assert not any(block._forward_hooks for block in bare.up_blocks)
