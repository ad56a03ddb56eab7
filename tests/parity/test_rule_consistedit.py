"""ConsistEdit: a mask from the attention to words; queries, keys and values mixed by it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.marks import every
from tests.parity.joint import KINDS, Control, Edits, Layer, Stream, agree, differ, edits
from zerocon.backbones.loading import Parts
from zerocon.inversions.by_solver import UniInversion
from zerocon.methods.consistedit import ConsistEdit

STEPS, THRESHOLD = 3, 0.4
# Where it acts: joint attention of Stable Diffusion 3, FLUX's blocks with one stream.
SITES = {
    "sd3": ("joint.*.self,!*.dual.*", "cross", "joint"),
    "sd35": ("joint.*.self,!*.dual.*", "cross", "joint"),
    "flux": ("single.*.self", "single.*.cross", "single"),
    "unet": ("self@1/1", "cross@1/1", "self"),
}


@pytest.fixture(scope="module", params=KINDS)
def both(
    request: pytest.FixtureRequest, parts: Parts, tmp_path_factory: pytest.TempPathFactory
) -> Edits:
    return edits(request.param, parts, tmp_path_factory.mktemp("parity"))


def object_tokens(both: Edits) -> list[list[int]]:
    """Of each case: where its object's word stands in the source prompt, for CLIP and for T5."""
    found: list[list[int]] = []
    for case in both.cases:
        word, first, places = (case.blend_words or ("", ""))[0], 0, list[int]()
        for reader in (both.backbone, getattr(both.backbone, "behind", None)):
            if reader is None:
                continue
            prompt, own = reader.tokens(case.source_prompt), reader.tokens(word)
            own = own[reader.start_tokens : -1]
            start = next(i for i in range(len(prompt)) if prompt[i : i + len(own)] == own)
            places += range(first + start, first + start + len(own))
            first += reader.prompt_tokens
        found.append(places)
    return found


@dataclass
class Watching(Control):
    """Sums the image's attention to each text token, over heads, layers and passes."""

    both: Edits
    total: Tensor | float = 0.0

    def probs(self, layer: Layer, probs: Tensor) -> None:
        kind = SITES[self.both.kind][2]
        wanted = "cross" if kind == "self" else kind
        same_grid = probs.shape[2] == self.both.net.grid[0] * self.both.net.grid[1]
        if layer.kind == wanted and same_grid:
            self.total = self.total + probs.mean(1)

    def background(self) -> Tensor:
        """1 off the object, [case, 1, position, 1]."""
        assert isinstance(self.total, Tensor)
        rows: list[Tensor] = []
        for row, tokens in enumerate(object_tokens(self.both)):
            attention = self.total[row][:, tokens].sum(1)
            share = (attention - attention.min()) / (attention.max() - attention.min())
            rows.append((share <= THRESHOLD).to(attention))
        return torch.stack(rows)[:, None, :, None]


@dataclass
class Mixing(Control):
    both: Edits
    structure: Tensor
    content: Tensor
    give: bool
    kept: dict[Layer, Stream] = field(default_factory=dict[Layer, Stream])

    def streams(self, layer: Layer, image: Stream, text: Stream | None) -> None:
        if layer.kind != SITES[self.both.kind][2] or image.q.shape[2] != self.structure.shape[2]:
            return
        if not self.give:
            self.kept[layer] = Stream(image.q, image.k, image.v)
            return
        s = self.kept[layer]
        image.q = s.q * self.structure + image.q * (1 - self.structure)
        image.k = s.k * self.structure + image.k * (1 - self.structure)
        image.v = s.v * self.content + image.v * (1 - self.content)


@torch.no_grad()
def rule(both: Edits, w: float, full_steps: int) -> Tensor:
    net, c, ts = both.net, both.conditions, both.net.times(STEPS)
    inverted = UniInversion()(both.backbone, both.clean, c, STEPS, both.draws).latents.flip(0)
    watching = Watching(both)
    for t, z in zip(ts[:-1], inverted, strict=False):
        net.v(z / net.scale(t), t, c.source, 1.0, watching)
    mask = watching.background()
    assert 0.05 < mask.mean() < 0.95
    source = edit = inverted[0] / net.scale(ts[0])
    for step, (t, there) in enumerate(pairwise(ts)):
        structure = torch.ones_like(mask) if step < full_steps else mask
        with_text, without = (Mixing(both, structure, mask, give=False) for _ in range(2))
        v_source = both.guided(source, t, c.source, w, (with_text, without))
        given = tuple(
            Mixing(both, structure, mask, give=True, kept=m.kept) for m in (with_text, without)
        )
        v_edit = both.guided(edit, t, c.target, w, given)
        source, edit = source + (there - t) * v_source, edit + (there - t) * v_edit
    return net.scale(ts[-1]) * edit


@pytest.mark.parametrize(("w", "alpha"), every(2, [(3.0, 0.34), (1.0, 0.34), (3.0, 0.0)]))
def test_consistedit(both: Edits, w: float, alpha: float) -> None:
    sites, mask_sites, _ = SITES[both.kind]
    method = ConsistEdit(STEPS, w, alpha, sites, mask_sites=mask_sites, threshold=THRESHOLD)
    ours = both.ours(method, UniInversion())
    agree(ours, rule(both, w, full_steps=1 if alpha else 0))
    plain = ConsistEdit(STEPS, w, alpha, sites, masked=False)
    differ(ours, both.ours(plain, UniInversion()))
