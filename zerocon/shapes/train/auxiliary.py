"""Auxiliary per-position classification from the denoiser's features during training.

The denoising loss alone is slow to teach which word belongs to which place. Small heads,
discarded after training, predict at every position from features of two blocks whether a thing is
there, its attributes, the background and the style. The caption has this information, and the
denoiser's last layers need it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zerocon.shapes.scene import RADIUS, SCENE_ATTRIBUTES, THING_ATTRIBUTES, Scene

SIZES = [2, *(len(v) for v in (THING_ATTRIBUTES | SCENE_ATTRIBUTES).values())]
THINGS = 0.6  # weight added at a thing's positions, divided by its radius
HARD = ("cross",)  # shapes that were generated worst
IGNORED = -100  # class that `cross_entropy` ignores


class PositionClasses:
    """The labels of every scene of a data set."""

    def __init__(self, scenes: list[Scene]) -> None:
        # [scene, thing, (x, y, radius, attribute numbers…)]; a radius below 0: no thing.
        rows = [[_thing_row(s, i) for i in range(2)] for s in scenes]
        self.things = torch.tensor(rows, dtype=torch.float32)
        self.wide = torch.tensor(
            [[v.index(getattr(s, a)) for a, v in SCENE_ATTRIBUTES.items()] for s in scenes]
        )

    def to(self, device: torch.device) -> PositionClasses:
        self.things, self.wide = self.things.to(device), self.wide.to(device)
        return self

    def labels(self, rows: Tensor, side: int) -> Tensor:
        """Class numbers at every position, [scene, head, side, side]."""
        things = self.things[rows][:, :, :, None, None]
        away = _away(things, side)
        there = away < things[:, :, 2]  # [scene, thing, y, x]
        labels = [there.any(1).long()]
        for k in range(len(THING_ATTRIBUTES)):
            here = torch.where(there, things[:, :, 3 + k].expand_as(there), float("-inf"))
            labels.append(here.amax(1).clamp(min=IGNORED).long())
        wide = self.wide[rows][:, :, None, None].expand(-1, -1, side, side)
        return torch.cat([torch.stack(labels, 1), wide], dim=1)

    def weights(self, rows: Tensor, side: int) -> Tensor:
        """The weight of the error at every position, [scene, 1, side, side], with mean 1.

        A small thing covers few of a latent's 256 positions and hardly counts in their mean. Use
        the weights only at times at which the noisy picture shows where things are; at others
        they would bias the prediction towards things at the weighted positions.
        """
        things = self.things[rows][:, :, :, None, None]
        away = _away(things, side)
        radius = things[:, :, 2]
        near = (away < radius + 1 / side) & (radius > 0)
        weight = 1 + (near * (THINGS / radius.abs())).amax(1, keepdim=True)
        return weight / weight.mean((2, 3), keepdim=True)

    def error(self, squared: Tensor, rows: Tensor, visible: Tensor) -> Tensor:
        """Each row's mean squared error, weighted in rows that are `visible`."""
        weights = self.weights(rows, squared.shape[-1])
        return (squared * weights.where(visible[:, None, None, None], 1.0)).mean((1, 2, 3))

    def odds(self) -> Tensor:
        """Relative frequency of each scene: times three for each thing of a hard shape."""
        hard = torch.tensor([s in HARD for s in THING_ATTRIBUTES["shape"]])
        shapes = self.things[:, :, 3 + list(THING_ATTRIBUTES).index("shape")].long()
        there = self.things[:, :, 2] > 0
        return 3.0 ** (hard[shapes] & there).sum(1)


def _away(things: Tensor, side: int) -> Tensor:
    """The distance of every position from each thing's centre, [scene, thing, side, side]."""
    ticks = (torch.arange(side, device=things.device) + 0.5) / side
    y, x = ticks[:, None], ticks[None, :]
    return ((x - things[:, :, 0]).square() + (y - things[:, :, 1]).square()).sqrt()


def _thing_row(scene: Scene, index: int) -> list[float]:
    if index >= len(scene.things):
        return [0.0, 0.0, -1.0] + [0.0] * len(THING_ATTRIBUTES)
    thing = scene.things[index]
    numbers = [float(v.index(getattr(thing, a))) for a, v in THING_ATTRIBUTES.items()]
    return [thing.x, thing.y, RADIUS[thing.size], *numbers]


class WithHeads(nn.Module):
    """A denoiser and its heads, trained together. `blocks`: whose features they read, and widths.

    `maps` turns a block's output into a map, [row, channel, y, x].
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

    def loss(self, classes: PositionClasses, rows: Tensor) -> Tensor:
        """The cross entropy of the last forward pass's features, summed over heads and blocks."""
        total = torch.zeros((), device=rows.device)
        for number, head in enumerate(self.heads):
            features = self._features.pop(number)
            labels = classes.labels(rows, features.shape[-1])
            outputs = head(features).float().split(SIZES, dim=1)
            for k, logits in enumerate(outputs):
                total = total + F.cross_entropy(logits, labels[:, k], ignore_index=IGNORED)
        return total
