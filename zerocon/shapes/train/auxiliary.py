"""What is where, asked of the denoiser's own features while it learns to denoise.

The noise alone teaches slowly which word belongs to which place. So small heads, thrown away
afterwards, read from two of its blocks what is at every position: whether a thing is there,
and each of its attributes, the background and the style. What they need the caption tells, and
a feature that carries it is what the denoiser's last layers need as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zerocon.shapes.scene import RADIUS, SCENE_ATTRIBUTES, THING_ATTRIBUTES, Scene

SIZES = [2, *(len(v) for v in (THING_ATTRIBUTES | SCENE_ATTRIBUTES).values())]
THINGS = 0.6  # the weight of a thing's positions is this over its radius, beside 1 elsewhere
HARD = ("cross",)  # shapes whose pictures came out wrong most often
ELSEWHERE = -100  # what `cross_entropy` leaves out


class Lessons:
    """The answers, for every scene of a data set."""

    def __init__(self, scenes: list[Scene]) -> None:
        # [scene, thing, (x, y, radius, attribute numbers…)]; a radius below 0: no such thing.
        rows = [[_thing_row(s, i) for i in range(2)] for s in scenes]
        self.things = torch.tensor(rows, dtype=torch.float32)
        self.wide = torch.tensor(
            [[v.index(getattr(s, a)) for a, v in SCENE_ATTRIBUTES.items()] for s in scenes]
        )

    def answers(self, rows: Tensor, side: int) -> Tensor:
        """Class numbers at every position, [scene, question, side, side]."""
        things = self.things[rows][:, :, :, None, None]
        away = _away(things, side)
        there = away < things[:, :, 2]  # [scene, thing, y, x]
        answers = [there.any(1).long()]
        for k in range(len(THING_ATTRIBUTES)):
            here = torch.where(there, things[:, :, 3 + k].expand_as(there), float("-inf"))
            answers.append(here.amax(1).clamp(min=ELSEWHERE).long())
        wide = self.wide[rows][:, :, None, None].expand(-1, -1, side, side)
        return torch.cat([torch.stack(answers, 1), wide], dim=1)

    def emphasis(self, rows: Tensor, side: int) -> Tensor:
        """How much the error counts at every position, [scene, 1, side, side], 1 on average.

        A small thing is a few of a latent's 256 positions, and lost in their mean. Only for
        times at which the noisy picture shows where the things are: weights that depend on
        what can't be known would pull the answer towards scenes with a thing at the position.
        """
        things = self.things[rows][:, :, :, None, None]
        away = _away(things, side)
        radius = things[:, :, 2]
        near = (away < radius + 1 / side) & (radius > 0)
        weight = 1 + (near * (THINGS / radius.abs())).amax(1, keepdim=True)
        return weight / weight.mean((2, 3), keepdim=True)

    def error(self, squared: Tensor, rows: Tensor, placed: Tensor) -> Tensor:
        """Each row's mean squared error; with emphasis where the rows are `placed`."""
        emphasis = self.emphasis(rows, squared.shape[-1])
        return (squared * emphasis.where(placed[:, None, None, None], 1.0)).mean((1, 2, 3))

    def odds(self) -> Tensor:
        """How often a scene is drawn: three times, for each thing that is hard to draw."""
        hard = torch.tensor([s in HARD for s in THING_ATTRIBUTES["shape"]])
        shapes = self.things[:, :, 3 + list(THING_ATTRIBUTES).index("shape")].long()
        there = self.things[:, :, 2] > 0
        return 3.0 ** (hard[shapes] & there).sum(1)


def _away(things: Tensor, side: int) -> Tensor:
    """How far every position lies from each thing's centre, [scene, thing, side, side]."""
    ticks = (torch.arange(side) + 0.5) / side
    y, x = ticks[:, None], ticks[None, :]
    return ((x - things[:, :, 0]).square() + (y - things[:, :, 1]).square()).sqrt()


def _thing_row(scene: Scene, index: int) -> list[float]:
    if index >= len(scene.things):
        return [0.0, 0.0, -1.0] + [0.0] * len(THING_ATTRIBUTES)
    thing = scene.things[index]
    numbers = [float(v.index(getattr(thing, a))) for a, v in THING_ATTRIBUTES.items()]
    return [thing.x, thing.y, RADIUS[thing.size], *numbers]


class Asked(nn.Module):
    """A denoiser and its heads, trained together. `blocks`: whose features are asked, and how wide.

    `maps` makes a block's output a map, [row, channel, y, x].
    """

    def __init__(
        self,
        denoiser: Any,
        blocks: Sequence[tuple[nn.Module, int]],
        maps: Callable[[Any], Tensor] = lambda output: output,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.heads = nn.ModuleList(nn.Conv2d(width, sum(SIZES), 1) for _, width in blocks)
        self._maps = maps
        self._features: dict[int, Tensor] = {}
        self._hooks = [
            block.register_forward_hook(self._keep(k)) for k, (block, _) in enumerate(blocks)
        ]

    def without_heads(self) -> Any:
        for hook in self._hooks:
            hook.remove()
        return self.denoiser

    def _keep(self, number: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            self._features[number] = self._maps(output)

        return hook

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.denoiser(*args, **kwargs).sample

    def wrong(self, lessons: Lessons, rows: Tensor) -> Tensor:
        """How wrong the last forward pass's features are, summed over questions and blocks."""
        total = torch.zeros(())
        for number, head in enumerate(self.heads):
            features = self._features.pop(number)
            answers = lessons.answers(rows, features.shape[-1])
            asked = head(features).float().split(SIZES, dim=1)
            for k, logits in enumerate(asked):
                total = total + F.cross_entropy(logits, answers[:, k], ignore_index=ELSEWHERE)
        return total
