"""FTEdit: fixed-point inversion, the shared words' tokens and the values of the source."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.marks import every
from tests.parity.joint import KINDS, Control, Edits, Layer, Stream, agree, differ, edits
from zerocon.backbones.loading import Parts
from zerocon.core.conditions import Words
from zerocon.inversions.direct import DirectInversion
from zerocon.methods.ftedit import FTEdit

W, STEPS = 2.0, 3
# As published: joint attention but for the last block's. Here of three blocks, or of FLUX's two.
SITES = {
    "sd3": ("joint.*.cross,!joint.2.*", "joint.0.self,joint.0.cross,joint.1.self,joint.1.cross"),
    "sd35": ("joint.*.cross,!joint.2.*", "joint.0.self,joint.0.cross,joint.1.self,joint.1.cross"),
    "flux": ("joint.0.cross", "joint.0.*"),
}


@pytest.fixture(scope="module", params=[kind for kind in KINDS if kind != "unet"])
def both(
    request: pytest.FixtureRequest, parts: Parts, tmp_path_factory: pytest.TempPathFactory
) -> Edits:
    return edits(request.param, parts, tmp_path_factory.mktemp("parity"))


def pairs(source: tuple[int, ...], target: tuple[int, ...]) -> list[int]:
    """The place in the source of each target token, or -1: the longest common subsequence."""
    best = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]
    for i, a in enumerate(source, 1):
        for j, b in enumerate(target, 1):
            best[i][j] = max(best[i][j - 1], best[i - 1][j], best[i - 1][j - 1] + (a == b))
    found, i, j = [-1] * len(target), len(source), len(target)
    while i and j:
        if best[i][j] == best[i][j - 1]:
            j -= 1
        elif best[i][j] == best[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            found[j] = i
    return found


def mapped(words: Words) -> list[int]:
    """The same over all tokens of a condition; padding is paired by its place."""
    own = pairs(words.source, words.target)
    own += range(len(own), words.length)
    if words.behind is None:
        return own
    return own + [p if p < 0 else words.length + p for p in mapped(words.behind)]


@dataclass
class Row(Control):
    """Of the source's row it keeps what passes; the target's takes it."""

    both: Edits
    give: bool
    values: bool
    texts: dict[Layer, Tensor] = field(default_factory=dict[Layer, Tensor])
    kept: dict[Layer, tuple[Tensor, Tensor]] = field(
        default_factory=dict[Layer, tuple[Tensor, Tensor]]
    )

    def applies(self, layer: Layer) -> bool:
        return layer.kind == "joint" and layer.number < (1 if self.both.kind == "flux" else 2)

    def text(self, layer: Layer, states: Tensor) -> Tensor:
        if not self.applies(layer):
            return states
        if not self.give:
            self.texts[layer] = states
            return states
        taken = states.clone()
        for row, words in enumerate(self.both.conditions.words):
            for place, origin in enumerate(mapped(words)):
                if origin >= 0:
                    taken[row, place] = self.texts[layer][row, origin]
        return taken

    def streams(self, layer: Layer, image: Stream, text: Stream | None) -> None:
        if not self.applies(layer) or text is None:
            return
        if not self.give:
            self.kept[layer] = image.v, text.v
        elif self.values:
            image.v, text.v = self.kept[layer]


@torch.no_grad()
def rule(both: Edits, value_steps: int) -> Tensor:
    net, c, ts = both.net, both.conditions, both.net.times(STEPS)
    trajectory = [both.clean]
    for t, noisier in pairwise(ts[::-1]):
        z, asked, found = trajectory[-1], trajectory[-1], list[Tensor]()
        for _ in range(3):
            found.append(net.v(asked, noisier, c.source, 1.0))
            asked = z + (noisier - t) * found[-1]
        trajectory.append(z + (noisier - t) * (found[0] + found[1] + found[2]) / 3)
    source = edit = trajectory.pop()
    for step, (t, there) in enumerate(pairwise(ts)):
        first = Row(both, give=False, values=False)
        both.guided(source, t, c.source, W, (first, None))
        second = Row(both, give=True, values=step < value_steps, texts=first.texts, kept=first.kept)
        edit = edit + (there - t) * both.guided(edit, t, c.target, W, (second, None))
        source = trajectory.pop()
    return edit


@pytest.mark.parametrize("values", every(2, [0.34, 0.0]))
def test_ftedit(both: Edits, values: float) -> None:
    text_sites, value_sites = SITES[both.kind]
    method = FTEdit(STEPS, W, 1.0, text_sites, values, value_sites)
    inversion = DirectInversion(walk="fixed_point")
    ours = both.ours(method, inversion)
    agree(ours, rule(both, value_steps=1 if values else 0))
    differ(ours, both.ours(FTEdit(STEPS, W, 0.0, text_sites, values, value_sites), inversion))


def test_tokens_of_both_encoders_are_paired(both: Edits) -> None:
    """The first case's prompts differ in one word, whatever encoder reads them."""
    words = both.conditions.words[0]
    new = [place for place, origin in enumerate(mapped(words)) if origin < 0]
    assert len(new) == (1 if both.kind == "flux" else 2)
