"""Each inversion against its formula and its guarantees."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.marks import slow_but_for
from zerocon.backbones.shapes import Shapes
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Condition, Conditions, Draws
from zerocon.core.forward import Evaluations
from zerocon.core.levels import Guess, Level, Path, noise_scale, vp_level
from zerocon.core.taps import Taps
from zerocon.datasets.shapes import ShapesPIE
from zerocon.inversions.base import Inversion, Trajectory, proximal_share
from zerocon.inversions.by_solver import (
    FireFlowInversion,
    FixedPointInversion,
    InversionBySolver,
    RFSolverInversion,
    UniInversion,
)
from zerocon.inversions.ddim import DDIMInversion
from zerocon.inversions.direct import DirectInversion
from zerocon.inversions.edit_friendly import EditFriendlyInversion
from zerocon.inversions.negative_prompt import NegativePromptInversion
from zerocon.inversions.null_text import NullTextInversion
from zerocon.inversions.regularized import RegularizedInversion
from zerocon.inversions.rf_inversion import RFInversion
from zerocon.methods.ddim import DDIM

PLACES = ("at the beach", "on a gray background", "in the forest", "at night")
SOURCE = [f"a big {colour} circle {place}" for colour in ("red", "blue") for place in PLACES]
TARGET = [prompt.replace("circle", "square") for prompt in SOURCE]


@dataclass
class Flat:
    """A network that predicts its condition's mean for any latent."""

    calls: list[int] = field(default_factory=list[int])

    taps: Taps = field(default_factory=lambda: Taps(()))
    evaluations: Evaluations = field(default_factory=Evaluations)

    def path(self, steps: int) -> Path:
        alphas = torch.linspace(0.5, 0.99, steps + 1).tolist()
        return Path(tuple(vp_level(steps - i, alpha) for i, alpha in enumerate(alphas)))

    def predict(self, z: Tensor, level: Level, condition: Condition) -> Guess:
        self.calls.append(len(z))
        noise = condition.tokens.mean((1, 2))[:, None, None, None].expand_as(z)
        return Guess.from_noise(z, noise, level)


def flat(*values: float) -> Conditions:
    """Source conditions of one value each, and a negative of zeros."""
    tokens = torch.tensor(values)[:, None, None].expand(-1, 2, 3)
    return Conditions(Condition(tokens), Condition(tokens), Condition(torch.zeros_like(tokens)))


def invert(model: Any, inversion: Inversion, conditions: Conditions, steps: int) -> Trajectory:
    count = len(conditions.source)
    clean = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    draws = Draws(0, [str(row) for row in range(count)])
    return inversion(model, clean, conditions, steps, draws)


def conditions_of(backbone: StableDiffusionBackbone, rows: list[int]) -> Conditions:
    source, target = ([prompts[r] for r in rows] for prompts in (SOURCE, TARGET))
    empty = [""] * len(rows)
    return Conditions(*(backbone.embed(prompts) for prompts in (source, target, empty)))


def walked(
    backbone: StableDiffusionBackbone, inversion: Inversion, method: DDIM, rows: list[int]
) -> tuple[Tensor, Trajectory, Tensor]:
    """(the pictures' latents, their trajectory, the method's result)."""
    clean = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0))[rows]
    conditions, draws = conditions_of(backbone, rows), Draws(0, [str(r) for r in rows])
    trajectory = inversion(backbone, clean, conditions, method.steps, draws)
    return clean, trajectory, method(backbone, trajectory, conditions, draws)


INVERSIONS = [
    DDIMInversion(refinements=1),
    RegularizedInversion(iterations=1, rolls=1),
    NullTextInversion(guidance=3.0, iterations=2),
    FireFlowInversion(guidance=2.0),
    DirectInversion(),
    NegativePromptInversion(proximal=0.75),
    EditFriendlyInversion(),
    RFSolverInversion(),
    UniInversion(),
    FixedPointInversion(),
    RFInversion(),
]


@pytest.mark.parametrize(
    "inversion", slow_but_for(INVERSIONS[:2], INVERSIONS), ids=lambda i: type(i).__name__
)
def test_cases_of_a_batch_are_independent(
    backbone: StableDiffusionBackbone, inversion: Inversion
) -> None:
    method = DDIM(steps=2, guidance=3.0)
    _, trajectory, edited = walked(backbone, inversion, method, list(range(8)))
    for rows in ([5], [6, 5, 1]):
        _, ours, alone = walked(backbone, inversion, method, rows)
        torch.testing.assert_close(alone, edited[rows], rtol=0, atol=1e-4)
        torch.testing.assert_close(ours.latents, trajectory.latents[:, rows], rtol=0, atol=1e-4)


def test_refinements_reduce_the_reconstruction_error(backbone: StableDiffusionBackbone) -> None:
    method, errors = DDIM(steps=5, guidance=1.0, prompt="source"), list[float]()
    for refinements in (0, 1, 5):
        inversion = DDIMInversion(refinements=refinements)
        clean, _, back = walked(backbone, inversion, method, [0])
        errors.append((back - clean).square().mean().item())
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < 0.01 * errors[0]


@pytest.mark.parametrize(
    ("inversion", "share"),
    [
        pytest.param(FireFlowInversion(), 0.03, marks=pytest.mark.slow),
        pytest.param(RFSolverInversion(), 0.02, marks=pytest.mark.slow),
        pytest.param(UniInversion(), 0.3, marks=pytest.mark.slow),
        pytest.param(FixedPointInversion(), 0.3, marks=pytest.mark.slow),
    ],
    ids=lambda i: type(i).__name__,
)
def test_solvers_reconstruct_better_than_ddim_inversion(
    trained: tuple[Any, Tensor, Conditions], inversion: InversionBySolver, share: float
) -> None:
    """The reconstruction error in 10 steps, relative to that of DDIM inversion (0.02)."""
    backbone, clean, conditions = trained
    method, lost = DDIM(steps=10, guidance=1.0, prompt="source"), list[float]()
    for one in (DDIMInversion(), inversion):
        walk = one(backbone, clean, conditions, 10, Draws(0, ["a"]))
        back = method(backbone, walk, conditions, Draws(0, ["a"]))
        lost.append((back - clean).square().mean().item())
    assert lost[1] < share * lost[0]


@pytest.fixture(scope="module")
def trained() -> tuple[Any, Tensor, Conditions]:
    """The packaged model, and the latent and conditions of one picture."""
    backbone = Shapes(device="cpu", dtype="float32").load()
    dataset = ShapesPIE(20, "validation", backbone.size)
    case = dataset.load(dataset.ids[0])
    source = backbone.embed([case.source_prompt])
    conditions = Conditions(source, source, backbone.embed([""]))
    return backbone, backbone.encode(case.image[None]), conditions


def test_a_share_is_inverted_from_the_picture_on(backbone: StableDiffusionBackbone) -> None:
    method = DDIM(steps=5, guidance=1.0)
    clean, part, _ = walked(backbone, RFSolverInversion(share=0.55), method, [0])  # of 5: 2.75
    _, whole, _ = walked(backbone, RFSolverInversion(), method, [0])
    assert torch.equal(part.latents, whole.latents[:4])
    assert torch.equal(part.clean, clean)
    assert (len(part.path), len(part.middles)) == (3, 3)
    for left in (whole.tail(3), whole.tail(3).tail(7)):
        assert torch.equal(left.latents, part.latents)
        assert (left.path, left.middles) == (part.path, part.middles)


def test_a_tail_keeps_what_belongs_to_its_steps(backbone: StableDiffusionBackbone) -> None:
    method = DDIM(steps=4, guidance=3.0)
    _, noisy, _ = walked(backbone, EditFriendlyInversion(skip=0.0), method, [0])
    _, nulls, _ = walked(backbone, NegativePromptInversion(), method, [0])
    assert noisy.noises is not None
    assert same_tensor(noisy.tail(2).noises, noisy.noises[2:])
    left = nulls.tail(2).negatives
    assert left is not None
    assert len(left.tokens) == 2


def same_tensor(a: Tensor | None, b: Tensor) -> bool:
    return a is not None and torch.equal(a, b)


def test_the_source_within_a_step_lies_on_its_straight_line(
    backbone: StableDiffusionBackbone,
) -> None:
    _, walk, _ = walked(backbone, RFSolverInversion(), DDIM(steps=4, guidance=1.0), [0])
    here, there = walk.path.steps[1]
    middle = walk.middles[1]
    assert middle.t == pytest.approx((here.t + there.t) / 2)
    assert torch.equal(walk.source_at(1, here), walk.before(1))
    ends = walk.before(1) / here.scale + walk.before(2) / there.scale
    torch.testing.assert_close(walk.source_at(1, middle) / middle.scale, ends / 2)


def test_direct_inversion_with_a_solver(backbone: StableDiffusionBackbone) -> None:
    """FTEdit's sampler: fixed-point inversion, and resetting the source branch."""
    method = DDIM(steps=3, guidance=1.0)
    _, walk, _ = walked(backbone, DirectInversion(walk="fixed_point"), method, [0, 1])
    _, expected, _ = walked(backbone, FixedPointInversion(), method, [0, 1])
    assert torch.equal(walk.latents, expected.latents)
    assert (walk.pinned, walk.pulled) == (True, False)
    assert DirectInversion(walk="fireflow").way_back == "fireflow"
    assert not DirectInversion(walk="fireflow").uses_draws
    with pytest.raises(ConfigError, match=r"walk=rf_solver has no refinements"):
        DirectInversion(walk="rf_solver", refinements=1)


def test_rf_inversion_without_the_model_leads_to_the_drawn_noise(
    backbone: StableDiffusionBackbone,
) -> None:
    """At γ = 1 the trajectory is the straight line from the picture to the noise."""
    clean, walk, _ = walked(backbone, RFInversion(gamma=1.0), DDIM(steps=5, guidance=1.0), [0])
    noise = Draws(0, ["0"]).normal_like(clean, "rf_inversion")
    first, top = walk.path.levels[-1], walk.path.levels[0]
    share = (top.t - first.t) / (1 - first.t)
    expected = (1 - share) * clean / first.scale + share * noise
    torch.testing.assert_close(walk.start / top.scale, expected, rtol=1e-4, atol=1e-4)
    again = walked(backbone, RFInversion(gamma=1.0), DDIM(steps=5, guidance=1.0), [1])[1]
    assert not torch.equal(again.start, walk.start)  # each case has its own noise


def test_direct_keeps_the_source_on_its_trajectory(backbone: StableDiffusionBackbone) -> None:
    clean, walk, _ = walked(backbone, DirectInversion(), DDIM(steps=4, guidance=3.0), [0, 1])
    source = walk.start
    for i in range(4):
        # Whatever the source's step has led to.
        left = {"source": torch.randn_like(source), "edit": torch.randn_like(source)}
        kept = walk.settled(i, left)
        assert torch.equal(kept["edit"], left["edit"])
        assert torch.equal(kept["source"], walk.latents[3 - i])
        moved = dataclasses.replace(walk, pulled=True).settled(i, left)
        torch.testing.assert_close(moved["edit"] - left["edit"], kept["source"] - left["source"])
        source = kept["source"]
    torch.testing.assert_close(source, clean, rtol=0, atol=1e-5)


def test_direct_inversion_with_regularized_inversion(backbone: StableDiffusionBackbone) -> None:
    method = DDIM(steps=3, guidance=1.0)
    _, walk, _ = walked(backbone, DirectInversion(walk="regularized", moves="both"), method, [0, 1])
    _, expected, _ = walked(backbone, RegularizedInversion(), method, [0, 1])
    assert torch.equal(walk.latents, expected.latents)
    assert (walk.pinned, walk.pulled) == (True, True)
    assert DirectInversion(walk="regularized").uses_draws
    assert not DirectInversion().uses_draws
    with pytest.raises(ConfigError, match=r"leave inversion\.prompt, inversion\.steps and"):
        DirectInversion(walk="regularized", prompt="empty")


def test_negative_prompt_makes_guidance_of_the_source_vanish(
    backbone: StableDiffusionBackbone,
) -> None:
    guided = DDIM(steps=4, guidance=7.5, prompt="source")
    plain = DDIM(steps=4, guidance=1.0, prompt="source")
    _, _, ours = walked(backbone, NegativePromptInversion(), guided, [0, 1])
    _, _, expected = walked(backbone, DDIMInversion(), plain, [0, 1])
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_proximal_guidance_by_hand() -> None:
    """The 0.75 quantile of 0.1, 0.2, 0.3, 0.4 lies a quarter of the way from 0.3 to 0.4."""
    row = torch.tensor([0.1, -0.2, 0.3, -0.4]).reshape(1, 1, 2, 2)
    difference = torch.cat([row, 10 * row])  # each case has a limit of its own
    kept = torch.tensor([0.0, 0.0, 0.0, -0.4]).reshape(1, 1, 2, 2)
    hard = difference * proximal_share(difference, 0.75, shrink=False)
    torch.testing.assert_close(hard, torch.cat([kept, 10 * kept]))
    closer = torch.tensor([0.0, 0.0, 0.0, -0.4 + 0.325]).reshape(1, 1, 2, 2)
    shrunk = difference * proximal_share(difference, 0.75, shrink=True)
    torch.testing.assert_close(shrunk, torch.cat([closer, 10 * closer]))
    walk = Trajectory(Flat().path(1), difference[None], proximal=0.75)
    z, one = torch.randn_like(difference), torch.ones_like(difference)
    level = walk.path.levels[0]
    negative, positive = (Guess.from_noise(z, n, level) for n in (one, one + difference))
    guess = walk.guided(negative, positive, 2.0)
    expected = 1 + 2 * torch.cat([kept, 10 * kept])
    torch.testing.assert_close(guess.noise, expected)
    torch.testing.assert_close(guess.clean, Guess.from_noise(z, expected, level).clean)


def test_null_text_takes_adams_steps() -> None:
    """Adam's first step is the learning rate, against the gradient's sign.

    With the source's noise 1 and ∅ at 0, guided noise is `w` instead of 1 until ∅ is 1: every
    entry of ∅ goes up, by 0.01, then 0.99 and 0.98 of it.
    """
    walk = invert(Flat(), NullTextInversion(iterations=1), flat(1.0), steps=3)
    assert walk.negatives is not None
    expected = torch.tensor([0.01, 0.0199, 0.0297])[:, None, None, None].expand(3, 1, 2, 3)
    torch.testing.assert_close(walk.negatives.tokens, expected, rtol=0, atol=1e-6)


def test_null_text_stops_each_case_separately() -> None:
    """The first case stops after one step, because its loss is small; the other takes all ten."""
    model = Flat()
    walk = invert(model, NullTextInversion(), flat(1e-4, 1.0), steps=1)
    assert walk.negatives is not None
    near, far = walk.negatives.tokens[0, :, 0, 0].tolist()
    assert near == pytest.approx(0.01, abs=1e-5)
    assert 0.09 < far < 0.101
    # Inverting, the source's noise, ten descents of which the first has both, the walk.
    assert model.calls == [2, 2, 2, *[1] * 9, 2]


@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_edit_friendly_noise_maps_reconstruct(
    backbone: StableDiffusionBackbone, guidance: float
) -> None:
    method = DDIM(steps=10, guidance=guidance, prompt="source")
    clean, walk, back = walked(backbone, EditFriendlyInversion(guidance), method, [0, 1])
    # 36 % of 10 steps are 3.6; 4 are left out.
    assert walk.path == backbone.path(10).tail(6)
    assert len(walk.latents) == 7
    torch.testing.assert_close(back, clean, rtol=0, atol=1e-4)
    published = EditFriendlyInversion(guidance, last_noise=False)
    _, _, nearly = walked(backbone, published, method, [0, 1])
    assert 1e-4 < (nearly - clean).abs().max() < 0.5


def test_edit_friendly_noises_by_hand() -> None:
    """A network that predicts zero noise: `z_s = √(ā_s/ā_t) z_t + σ · noise`."""
    walk = invert(Flat(), EditFriendlyInversion(skip=0.0), flat(0.0), steps=4)
    assert walk.noises is not None
    for i, (here, there) in enumerate(walk.path.steps):
        left = walk.before(i + 1) - there.signal / here.signal * walk.before(i)
        expected = left / noise_scale(here, there)
        torch.testing.assert_close(walk.noises[i], expected, rtol=1e-3, atol=1e-3)


def test_edit_friendly_latents_are_independent() -> None:
    walk = invert(Flat(), EditFriendlyInversion(skip=0.0), flat(*[0.0] * 64), steps=3)
    drawn = [
        (walk.before(i) - level.signal * walk.clean) / level.noise
        for i, level in enumerate(walk.path.levels[:-1])
    ]
    # 16,384 numbers: their mean is within 0.04 of 0 and their correlation, too, at five sigma.
    for noise in drawn:
        assert abs(noise.mean().item()) < 0.04
        assert noise.std().item() == pytest.approx(1, abs=0.03)
    for first, second in pairwise(drawn):
        assert abs((first * second).mean().item()) < 0.04
    again = walk.path.levels[0].mix(walk.clean, drawn[0])
    torch.testing.assert_close(walk.start, again)


@pytest.mark.slow
def test_null_text_reconstructs_where_ddim_does_not() -> None:
    """On the packaged models, 50 steps at guidance 7.5: PSNR against the autoencoder's own."""
    backbone = Shapes(device="cpu", dtype="float32").load()
    dataset = ShapesPIE(20, "test", backbone.size)
    cases = [dataset.load(case_id) for case_id in list(dataset.ids)[:2]]
    images = torch.stack([case.image for case in cases])
    clean = backbone.encode(images)
    source = backbone.embed([case.source_prompt for case in cases])
    conditions = Conditions(source, source, backbone.embed([""] * len(cases)))
    draws = Draws(0, [case.id for case in cases])
    method = DDIM(steps=50, guidance=7.5, prompt="source")

    def psnr(latents: Tensor) -> float:
        error = (backbone.decode(latents) - images).square().mean((1, 2, 3))
        return (-10 * error.log10()).mean().item()

    found = {"autoencoder": psnr(clean)}
    for inversion in (DDIMInversion(), NullTextInversion()):
        trajectory = inversion(backbone, clean, conditions, 50, draws)
        name = type(inversion).__name__
        found[name] = psnr(method(backbone, trajectory, conditions, draws))
    print({name: round(value, 2) for name, value in found.items()})
    assert found["NullTextInversion"] > found["autoencoder"] - 1
    assert found["DDIMInversion"] < found["autoencoder"] - 5
