"""InfEdit against its authors' rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from dataclasses import replace as with_fields
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.marks import slow_but_for
from tests.methods.edits import Given, conditions_of, given
from tests.methods.published import controlled, global_align, in_double
from zerocon.backbones.loading import Parts
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.cases import Case
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Draws
from zerocon.inversions.none import NoInversion
from zerocon.methods.infedit import InfEdit

STEPS = 6
METHOD = InfEdit(
    steps=STEPS, blend_threshold=0.8, spare_threshold=0.85, blend_noise=0.15, blend_spares=["gray"]
)
SOURCE = "a small red circle on a gray background"
PROMPTS = [
    (SOURCE, "a big blue square on a gray background", ("circle", "square")),
    (SOURCE, "a big green house on a gray background", ("gray", "gray")),  # spared and edited
    (SOURCE, "a small yellow house and a purple heart on a gray background", None),
]


@pytest.fixture(scope="module")
def double(parts: Parts) -> StableDiffusionBackbone:
    return in_double(parts)


def begin(backbone: StableDiffusionBackbone, method: InfEdit) -> Given:
    cases = [
        Case(str(row), torch.zeros(3, 32, 32), source, target, blend_words=blend)
        for row, (source, target, blend) in enumerate(PROMPTS)
    ]
    clean = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    conditions, draws = conditions_of(backbone, cases), Draws(0, [c.id for c in cases])
    trajectory = NoInversion()(backbone, clean, conditions, method.steps, draws)
    return Given(backbone, trajectory, conditions, draws)


@dataclass
class Unified:
    """The repository's controller: rows are source, target and mutual, the empty prompts' first."""

    method: InfEdit
    x_seq: list[int]
    y_seq: list[int]
    local: list[int]  # tokens
    mutual: list[int]
    x_latent: Tensor
    y_latent: Tensor
    start_steps: int
    cur_step: int = 0
    pairs: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    fresh: list[Tensor] = field(default_factory=list[Tensor])
    store: Tensor | None = None
    masks: list[Tensor] = field(default_factory=list[Tensor])

    def __post_init__(self) -> None:  # noqa: C901 - as long as the original
        base = global_align(self.x_seq, self.y_seq)
        alphas = torch.ones(77, dtype=torch.float64)
        alphas[: len(base)] = (torch.tensor(base) != -1).double()
        mapper = [*base, *range(len(self.y_seq), 77)]
        self.alpha_e, self.alpha_m = torch.zeros(2, 77, dtype=torch.float64)
        i = 0
        while i < len(self.y_seq):
            if alphas[i] == 0:
                start = i
                while alphas[i] == 0:
                    i += 1
                best, max_s, max_t = -2.0, None, 0
                for t in range(start, i):
                    for s in range(mapper[start - 1] + 1, mapper[i]):
                        sim = float(self.similarity(t, s))
                        if sim > best:
                            best, max_s, max_t = sim, s, t
                if max_s is not None:
                    mapper[max_t] = max_s
                    alphas[max_t] = 1
                    self.pairs.append((max_t, max_s))
                    if self.x_seq[max_s] in self.local:
                        self.alpha_e[max_t] = 1
            i += 1
        for place, token in enumerate(self.y_seq):
            if token in self.local:
                self.alpha_e[place] = 1
            if token in self.mutual and self.x_seq[mapper[place]] == token:
                self.alpha_m[place] = 1
        self.mapper, self.alphas = torch.tensor(mapper), alphas

    def similarity(self, target: int, source: int) -> Tensor:
        if self.method.swapped_pairs:
            return F.cosine_similarity(self.x_latent[target], self.y_latent[source], dim=0)
        return F.cosine_similarity(self.y_latent[target], self.x_latent[source], dim=0)

    @property
    def share(self) -> float:
        return (self.cur_step + self.start_steps + 1) / self.method.steps

    def self_qkv(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.method.self_attention <= self.share:
            return q[[0, 1, 1, 3, 4, 4]], k[[0, 1, 0, 3, 4, 3]], v[[0, 1, 0, 3, 4, 3]]
        return q[[0, 0, 0, 3, 3, 3]], k[[0, 0, 0, 3, 3, 3]], v[[0, 1, 0, 3, 4, 3]]

    def replaced(self, base: Tensor, target: Tensor) -> Tensor:
        return base[..., self.mapper] * self.alphas + target * (1 - self.alphas)

    def probs(self, probs: Tensor, *, is_cross: bool, place: str) -> Tensor:
        if not is_cross:
            return probs
        base, target, masa = probs[3:]
        of_base, of_masa = self.replaced(base, target), self.replaced(masa, target)
        if self.method.cross >= self.share:
            probs = torch.cat([probs[:4], of_base[None], probs[5:]])
        if place != "mid" and probs.shape[2] == 16:
            self.fresh.append(torch.stack([of_base, of_masa]))
        return probs

    def end_pass(self) -> None:
        maps = torch.cat(self.fresh, dim=1)
        self.store = maps if self.store is None else self.store + maps
        self.fresh, self.cur_step = [], self.cur_step + 1

    def mask(self, maps: Tensor, words: Tensor, threshold: float) -> Tensor:
        word_map = (maps * words).mean(0).amax(-1).view(1, 1, 4, 4)
        word_map = F.interpolate(word_map, size=(16, 16))
        mask = word_map / word_map.amax() > threshold
        self.masks.append(mask)
        return mask

    def blend(self, i: int, x_s: Tensor, x_t: Tensor, x_m: Tensor, alpha: float) -> Tensor:
        if i == 0:
            return x_t
        assert self.store is not None
        use_xm = self.cur_step + self.start_steps + 1 == self.method.steps
        thresh_e = max(self.method.blend_noise / alpha**0.5, self.method.blend_threshold)
        both = self.alpha_e * self.alpha_m
        mask_e = self.mask(self.store[1], self.alpha_e, thresh_e)
        mask_m = self.mask(self.store[0], self.alpha_m - both, self.method.spare_threshold)
        mask_me = self.mask(self.store[1], both, self.method.blend_threshold)
        out = torch.where(mask_e, x_t, x_m) if self.alpha_e.sum() else x_t
        out = torch.where(mask_m, x_s, out)
        return torch.where(mask_me, x_m, out) if use_xm else out


def ddcm(x_s: Tensor, x_t: Tensor, e_s: Tensor, e_t: Tensor, x_0: Tensor, alpha: float) -> Tensor:
    return x_0 + ((x_t - x_s) - (1 - alpha) ** 0.5 * (e_t - e_s)) / alpha**0.5


def controller_of(begun: Given, row: int, method: InfEdit) -> Unified:
    texts = begun.conditions
    words = texts.words[row]
    gray = begun.backbone.tokens("gray")[1:-1]
    return Unified(
        method,
        list(words.source),
        list(words.target),
        [words.target[place] for place in words.target_blend],
        list(gray) if method.blend_spares else [],
        texts.source.tokens[row],
        texts.target.tokens[row],
        method.steps - int(method.steps * method.strength),
    )


def published(
    backbone: StableDiffusionBackbone, begun: Given, row: int, method: InfEdit
) -> tuple[Tensor, Unified]:
    """The authors' loop for one picture, all six rows."""
    one, clean_all = slice(row, row + 1), begun.trajectory.clean
    x_0, texts = clean_all[one], begun.conditions
    src, tar, null = (c.tokens[one] for c in (texts.source, texts.target, texts.negative))
    control = controller_of(begun, row, method)
    unet: Any = controlled(backbone, control)
    alphas = backbone._alphas.tolist()
    stride = 1000 // method.steps
    times = [i * stride + 1 for i in reversed(range(method.steps))][control.start_steps :]
    x_s = begun.draws.normal_like(clean_all, "infedit")[one]
    if method.start == "picture":
        x_s = alphas[times[0]] ** 0.5 * x_0 + (1 - alphas[times[0]]) ** 0.5 * x_s
    x_t = x_m = x_s
    prompts, found = torch.cat([null, null, null, src, tar, src]), x_0
    for i, t in enumerate(times):
        out = unet(torch.cat([x_s, x_t, x_m] * 2), t, prompts, return_dict=False)[0]
        control.end_pass()
        us, ut, um, cs, ct, cm = out.split(1)
        e_s, e_m = (u + method.source_guidance * (c - u) for u, c in ((us, cs), (um, cm)))
        e_t = ut + method.guidance * (ct - ut)
        found = ddcm(x_s, x_t, e_s, e_t, x_0, alphas[t])
        mutual = ddcm(x_s, x_m, e_s, e_m, x_0, alphas[t])
        if i + 1 < len(times):
            noise = begun.draws.normal_like(clean_all, f"infedit/{i}")[one]
            a = alphas[times[i + 1]]
            x_s, x_t, x_m = (a**0.5 * x + (1 - a) ** 0.5 * noise for x in (x_0, found, mutual))
            x_t = control.blend(i, x_s, x_t, x_m, alphas[t])
    return found, control


SETTINGS = {
    "as usual": METHOD,
    "as published": with_fields(METHOD, swapped_pairs=True),
    "guided source": with_fields(METHOD, source_guidance=1.7),
    "from the picture": with_fields(METHOD, start="picture", strength=0.7),
    "other shares": with_fields(METHOD, cross=0.3, self_attention=0.5, blend_spares=None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_but_for(("as published",), SETTINGS))
@torch.no_grad()
def test_agrees_with_the_authors_rule(double: StableDiffusionBackbone, name: str) -> None:
    method = SETTINGS[name]
    begun = begin(double, method)
    ours = begun.run(method)
    for row in range(len(PROMPTS)):
        theirs, control = published(double, begun, row, method)
        torch.testing.assert_close(ours[row : row + 1], theirs, rtol=0, atol=1e-9)
        if row < 2:
            assert any(0 < mask.double().mean() < 1 for mask in control.masks)


def test_swapped_pairs_differ(double: StableDiffusionBackbone) -> None:
    begun = begin(double, METHOD)
    pairs = [
        controller_of(begun, 2, with_fields(METHOD, swapped_pairs=swapped)).pairs
        for swapped in (False, True)
    ]
    assert pairs[0] != pairs[1]
    swapped = begun.run(with_fields(METHOD, swapped_pairs=True))
    assert (swapped - begun.run(METHOD))[2].abs().max() > 1e-3


def test_the_same_prompt_gives_the_picture(double: StableDiffusionBackbone) -> None:
    """Without guidance source and edit have the same error, so it cancels."""
    method = with_fields(METHOD, guidance=1.0)
    begun = begin(double, method)
    words = [with_fields(w, target=w.source) for w in begun.conditions.words]
    source = begun.conditions.source
    begun.conditions = with_fields(begun.conditions, target=source, words=words)
    torch.testing.assert_close(begun.run(method), begun.trajectory.clean, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("method", "early", "late"),
    [
        (METHOD, 5, 4),  # published 6
        (with_fields(METHOD, local_blend=False), 4, 3),
        (with_fields(METHOD, source_guidance=2.0), 6, 6),
        (with_fields(METHOD, guidance=1.0), 3, 3),
    ],
)
def test_rows_through_the_network(
    double: StableDiffusionBackbone, method: InfEdit, early: int, late: int
) -> None:
    begun = given(double, method, [0])
    before = double.evaluations.forward
    begun.run(method)
    # (i + 1) / 6 < 0.7 in four of six steps.
    assert double.evaluations.forward - before == 4 * early + 2 * late


def test_without_words_to_align_it_says_so(double: StableDiffusionBackbone) -> None:
    begun = given(double, METHOD, [0])
    begun.conditions = with_fields(begun.conditions, words=[])
    with pytest.raises(ValueError, match=r"InfEdit aligns .*Conditions\.words"):
        begun.run(METHOD)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"method\.strength is 0\.5, .*method\.start=picture"):
        InfEdit(strength=0.5)
    with pytest.raises(ConfigError, match=r"method\.cross is 2"):
        InfEdit(cross=2)
