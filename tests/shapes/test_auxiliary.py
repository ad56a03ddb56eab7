"""What the U-Net is asked while it learns: the answers, and that asking leaves no trace."""

from __future__ import annotations

from dataclasses import replace

import torch

from zerocon.shapes.scene import COLORS, SHAPES, Scene, Thing
from zerocon.shapes.train.lessons import ELSEWHERE, SIZES, Asked, Lessons
from zerocon.shapes.train.unet import build

LEFT = Thing("heart", "blue", "plain", "big", "solid", "tilted", 0.25, 0.5)
RIGHT = Thing("circle", "red", "striped", "small", "solid", "upright", 0.75, 0.5)
SCENES = [
    Scene((LEFT, RIGHT), "beach", "night", 0.5),
    Scene((RIGHT,), "gray", "photo", 0.5),
]


def test_the_answers_lie_where_the_things_are() -> None:
    answers = Lessons(SCENES).answers(torch.tensor([0, 1]), 16)
    assert answers.shape == (2, len(SIZES), 16, 16)
    there, shape, color = answers[0, 0], answers[0, 1], answers[0, 2]
    assert there[8, 4] == there[8, 12] == 1
    assert there[0, 0] == 0
    assert shape[8, 4] == SHAPES.index("heart")
    assert shape[8, 12] == SHAPES.index("circle")
    assert color[8, 12] == COLORS.index("red")
    assert shape[0, 0] == color[0, 8] == ELSEWHERE
    # A radius of 0.14 sides is 2.24 positions of 16: about π r² of them.
    assert 12 <= int(answers[1, 0].sum()) <= 20
    assert answers[1, 1, 8, 4] == ELSEWHERE  # the second scene has nothing on the left
    assert answers[0, -1].unique().numel() == answers[0, -2].unique().numel() == 1


def test_positions_near_things_count_more_and_a_picture_as_much_as_before() -> None:
    weight = Lessons(SCENES).emphasis(torch.tensor([0, 1]), 16)
    torch.testing.assert_close(weight.mean((1, 2, 3)), torch.ones(2))
    assert weight[0, 0, 8, 12] > weight[0, 0, 8, 4] > weight[0, 0, 0, 0]  # small, big, nothing
    assert weight[1, 0, 8, 4] == weight[1, 0, 0, 0]  # the second scene has nothing on the left


def test_scenes_with_a_shape_hard_to_draw_come_more_often() -> None:
    crosses = [replace(LEFT, shape="cross"), replace(RIGHT, shape="cross")]
    scenes = [*SCENES, Scene((crosses[0], RIGHT), "gray", "photo", 0.5)]
    scenes.append(Scene(tuple(crosses), "gray", "photo", 0.5))
    assert Lessons(scenes).odds().tolist() == [1, 1, 3, 9]


def test_asking_leaves_the_network_as_it_was() -> None:
    unet = build()
    names = set(unet.state_dict())
    asked = Asked(unet, [(unet.up_blocks[1], 128), (unet.up_blocks[2], 96)])
    asked(torch.randn(2, 4, 16, 16), torch.tensor([5, 900]), torch.randn(2, 77, 96))
    wrong = asked.wrong(Lessons(SCENES), torch.tensor([0, 1]))
    wrong.backward()
    assert wrong > 5  # an untrained head knows nothing
    assert unet.conv_in.weight.grad.abs().max() > 0  # the question reaches the features
    bare = asked.without_heads()
    assert set(bare.state_dict()) == names
    assert not any(block._forward_hooks for block in bare.up_blocks)
