"""zeroCon's sampler: effects of its settings, and invariants."""

from __future__ import annotations

import copy
from dataclasses import replace as changed

import pytest
import torch
from torch import Tensor

from tests.marks import every, slow_but_for
from tests.tiny import eps, losses, tiny_backbone
from zerocon.backbones.loading import Parts
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.config.settings import compose_settings
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Condition, Conditions, Draws, Words
from zerocon.core.levels import guided
from zerocon.inversions.ddim import DDIMInversion
from zerocon.losses import Losses, ZeCon
from zerocon.losses.base import Moment, View
from zerocon.losses.gradients import gradients
from zerocon.methods.ddim import DDIM
from zerocon.methods.zerocon import ZeroCon, _Step

SHAPES = ("circle", "square", "house", "heart", "cross", "triangle", "circle", "square")
IDS = [f"case {i}" for i in range(8)]
WEIGHTS = {"xa_weight": 0.1, "cut_weight": 0.1, "n_patches": 16}
BOTH = losses(**WEIGHTS)
BASE = ZeroCon(BOTH, steps=2, guidance=3.0)


def sharpened(parts: Parts) -> Parts:
    """A random network's attention is nearly uniform; make it differ between prompts."""
    ours = copy.deepcopy(parts)
    for name, weight in ours.unet.named_parameters():
        if "to_q" in name or "to_k" in name:
            weight.data.mul_(2.0)
    return ours


@pytest.fixture(scope="module")
def backbone(parts: Parts) -> StableDiffusionBackbone:
    return tiny_backbone(sharpened(parts))


@pytest.fixture(scope="module")
def precise(parts: Parts) -> StableDiffusionBackbone:
    cpu = torch.device("cpu")
    return StableDiffusionBackbone(sharpened(parts), "precise", cpu, torch.float64, "")


def run(backbone: StableDiffusionBackbone, method: ZeroCon | DDIM, rows: list[int]) -> Tensor:
    clean = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0))[rows]
    clean = clean.to(backbone.dtype)
    sources = [f"a big red {SHAPES[r]} on a gray background" for r in rows]
    targets = [f"a big blue {SHAPES[r]} on a gray background" for r in rows]
    words = [
        Words(backbone.tokens(s), backbone.tokens(t)) for s, t in zip(sources, targets, strict=True)
    ]
    conditions = Conditions(
        backbone.embed(sources), backbone.embed(targets), backbone.embed([""] * len(rows)), words
    )
    draws = Draws(0, [IDS[r] for r in rows])
    trajectory = DDIMInversion()(backbone, clean, conditions, method.steps, draws)
    return method(backbone, trajectory, conditions, draws)


@pytest.fixture(scope="module")
def base(backbone: StableDiffusionBackbone) -> Tensor:
    return run(backbone, BASE, [0])


VARIANTS = {
    "both": BASE,
    "per branch": changed(BASE, update="per_branch", source_guidance=3.0),
    "background": changed(BASE, loss=losses(**WEIGHTS, positions="background")),
    "features": changed(
        BASE,
        loss=losses(
            **WEIGHTS | {"cut_sites": "down.*.res", "cut_features": "features", "n_patches": 32}
        ),
    ),
    "zecon": changed(BASE, loss=Losses(zecon=ZeCon(weight=0.1, n_patches=16))),
    "queries": changed(BASE, loss=losses(**WEIGHTS, cut_sites="self@1/2", cut_features="queries")),
    "normalised": changed(BASE, gradient="normalised", gradient_steps=2),
    "reused": changed(BASE, reevaluate=False, gradient="clipped"),
    "shared": changed(BASE, loss=losses(**WEIGHTS, shared_patches=True, query="reference")),
}


@pytest.mark.parametrize("name", slow_but_for(("per branch", "background", "zecon"), VARIANTS))
def test_cases_of_a_batch_are_independent(precise: StableDiffusionBackbone, name: str) -> None:
    """In double precision, so that only effects between rows could remain."""
    method = VARIANTS[name]
    three = run(precise, method, [0, 1, 2])
    assert three.isfinite().all()
    torch.testing.assert_close(three[1:2], run(precise, method, [1]), rtol=0, atol=1e-10)


@pytest.mark.slow
def test_any_batch_size_gives_the_same_in_single_precision(
    backbone: StableDiffusionBackbone,
) -> None:
    eight = run(backbone, BASE, list(range(8)))
    three, one = run(backbone, BASE, [0, 1, 2]), run(backbone, BASE, [1])
    torch.testing.assert_close(eight[:3], three, rtol=0, atol=1e-5)
    torch.testing.assert_close(three[1:2], one, rtol=0, atol=1e-5)


def test_without_weights_it_is_word_swap(backbone: StableDiffusionBackbone) -> None:
    nothing = changed(BASE, loss=losses(xa_weight=0.0, cut_weight=0.0))
    ours = run(backbone, nothing, [0, 1])
    theirs = run(backbone, DDIM(steps=2, guidance=3.0), [0, 1])
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "changes",
    every(
        3,
        [
            {"xa_weight": 0.0},
            {"cut_weight": 0.0},
            {"cut_sites": "up.3.*.self"},
            {"cut_features": "keys"},
            {"n_patches": 8},
            {"patch_sizes": (1,)},
            {"tau": 0.5},
            {"query": "reference"},
            {"xa_sites": "cross@1/4"},
            {"xa_reduction": "mean"},
            {"xa_fade": "linear"},
            {"cut_fade": "cosine"},
            {"xa_window": (0.0, 0.5)},
            {"cut_window": (0.5, 1.0)},
            {"positions": "background"},
        ],
    ),
    ids=str,
)
def test_every_setting_of_the_losses_has_an_effect(
    backbone: StableDiffusionBackbone, base: Tensor, changes: dict[str, object]
) -> None:
    other = run(backbone, changed(BASE, loss=losses(**WEIGHTS | changes)), [0])
    assert (base - other).abs().max() > 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance": 2.0},
        {"source_guidance": 2.0},
        {"negative": "caption"},
        {"update": "per_branch"},
        {"gradient": "normalised"},
        {"gradient": "clipped", "gradient_size": 1e-4},
        {"gradient_scale": 2.0},
        {"gradient_steps": 2},
        {"reevaluate": False},
    ],
    ids=str,
)
def test_every_setting_of_the_sampler_has_an_effect(
    backbone: StableDiffusionBackbone, base: Tensor, changes: dict[str, object]
) -> None:
    other = run(backbone, changed(BASE, **changes), [0])
    assert (base - other).abs().max() > 1e-4


def test_a_wide_clip_clips_nothing(backbone: StableDiffusionBackbone, base: Tensor) -> None:
    clipped = changed(BASE, gradient="clipped", gradient_size=1e6)
    assert torch.equal(run(backbone, clipped, [0]), base)


def test_a_scaled_gradient_is_that_of_heavier_losses(backbone: StableDiffusionBackbone) -> None:
    heavier = losses(n_patches=16, xa_weight=0.3, cut_weight=0.75)
    lighter = losses(n_patches=16, xa_weight=0.2, cut_weight=0.5)
    scaled = run(backbone, changed(BASE, loss=lighter, gradient_scale=1.5), [0])
    torch.testing.assert_close(scaled, run(backbone, changed(BASE, loss=heavier), [0]))
    assert (scaled - run(backbone, changed(BASE, loss=lighter), [0])).abs().max() > 1e-3


def test_stronger_losses_preserve_more(backbone: StableDiffusionBackbone) -> None:
    """Also in the first step: the losses decrease along their gradient."""
    z = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(4))
    found = []
    for weight in (0.0, 1.0):
        method = changed(BASE, loss=losses(n_patches=16, xa_weight=weight, cut_weight=weight))
        found.append(first_loss_after_moving(backbone, method, z))
    assert found[1] < found[0]


def first_loss_after_moving(backbone: StableDiffusionBackbone, method: ZeroCon, z: Tensor) -> float:
    texts = {"source": backbone.embed(["a red circle"]), "target": backbone.embed(["a blue heart"])}
    moment, weights = Moment(0, 1, Draws(0, ["a"])), {"xa": 1.0, "cut": 1.0}

    def view(latents: Tensor, text: str) -> View:
        with BOTH.watching(backbone.taps, weights, stop=False) as watch:
            eps(backbone, latents, 401, texts[text])
            return watch("all")

    reference = {"source": view(z, "source")}
    weights_now = method.loss.weights(0, 1)
    empty = backbone.embed([""])
    step = _Step(backbone, backbone.level(0.401), texts, weights_now, moment, empty)
    start = {"target": z, "negative": z}
    moved, _ = method._descended(step, start, reference)  # pyright: ignore[reportPrivateUsage]
    return BOTH(view(moved["target"], "target"), reference["source"], weights, moment).item()


def test_cost_is_what_the_documentation_says(backbone: StableDiffusionBackbone) -> None:
    """One row for the source, one forward and backward for the losses, two for guidance."""
    before = copy.copy(backbone.evaluations)
    run(backbone, BASE, [0])
    spent = backbone.evaluations
    inversion = BASE.steps
    assert spent.forward - before.forward == BASE.steps * (1 + 1 + 2) + inversion
    assert spent.backward - before.backward == BASE.steps
    assert spent.reference - before.reference == BASE.steps


def test_an_overflowing_gradient_does_not_move_a_case() -> None:
    z = {"target": torch.tensor([1.0, 2.0])[:, None, None, None]}

    def loss_at(latents: dict[str, Tensor]) -> Tensor:
        x = latents["target"].flatten()
        return torch.stack([x[0] ** 2, torch.log(x[1] - 2.0)])

    assert gradients(loss_at, z, torch.float32)["target"].flatten().tolist() == [2.0, 0.0]


def test_half_precision_keeps_small_gradients() -> None:
    z = {"target": torch.full((1, 1, 1, 1), 1.0, dtype=torch.float16)}
    slope = gradients(lambda x: (x["target"] * 1e-4).flatten() * 1e-4, z, torch.float16)["target"]
    assert slope.item() == pytest.approx(1e-8, rel=0.05)  # float16 ends at 6e-8


def test_windows_and_fades() -> None:
    both = losses(xa_weight=2.0, cut_weight=1.0, xa_window=(0.0, 0.5), cut_fade="linear")
    assert [both.weights(i, 4)["xa"] for i in range(4)] == [2.0, 2.0, 0.0, 0.0]
    assert [both.weights(i, 4)["cut"] for i in range(4)] == [0.875, 0.625, 0.375, 0.125]
    cosine = losses(xa_weight=1.0, xa_fade="cosine", xa_window=(0.5, 1.0))
    shares = [cosine.weights(i, 4)["xa"] for i in range(4)]
    assert shares[:2] == [0.0, 0.0]
    assert shares[2] == pytest.approx(0.8536, abs=1e-4)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("loss.cut.tau=0", "loss.cut.tau is 0"),
        ("loss.cut_weight=-1", "loss.cut.weight is -1; it must be at least 0"),
        ("loss.n_patches=1", "loss.cut.n_patches is 1"),
        ("loss.cut.patch_sizes=[]", r"loss.cut.patch_sizes is \[\]"),
        ("loss.xa.window=[0.5,0.2]", r"loss.xa.window is \[0.5, 0.2\]"),
        ("loss.cut.sites='self@4'", "'self@4' chooses no sites"),
        ("loss.cut.query=both", "loss.cut.query is 'both'; it must be one of: edit, reference"),
        ("loss.cut.features=probs", "loss.cut.features is 'probs'"),
        ("method.update=both", "method.update is 'both'"),
        ("method.gradient_steps=0", "method.gradient_steps is 0"),
    ],
)
def test_what_is_wrong_is_named(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose_settings(["method=zerocon", override])


def test_losses_belong_to_methods_that_descend_them() -> None:
    with pytest.raises(ConfigError, match="loss=none gives it none"):
        compose_settings(["method=zerocon", "loss=none"])
    with pytest.raises(ConfigError, match="`loss` would have no effect"):
        compose_settings(["method=word_swap", "loss=zerocon"])
    settings = compose_settings(["method=pix2pix_zero"])
    assert isinstance(settings.method, ZeroCon)
    assert settings.method.loss.terms["cut"].weight == 0


def test_it_samples_with_the_negatives_of_the_inversion(backbone: StableDiffusionBackbone) -> None:
    """Null-text inversion has an ∅ per step; each step must use its own."""
    method = changed(BASE, loss=losses(xa_weight=0.0, cut_weight=0.0))
    clean = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    conditions = Conditions(*(backbone.embed([p]) for p in ("a red circle", "a heart", "")))
    draws = Draws(0, ["a"])
    walk = DDIMInversion()(backbone, clean, conditions, 2, draws)
    told = [backbone.embed([text]) for text in ("a house", "a cross")]
    fitted = changed(walk, negatives=Condition.stack(told))
    z = walk.start
    for (here, there), negative in zip(walk.path.steps, told, strict=True):
        guesses = [backbone.predict(z, here, c) for c in (negative, conditions.target)]
        z = guided(*guesses, method.guidance).at(there)
    torch.testing.assert_close(method(backbone, fitted, conditions, draws), z, rtol=0, atol=1e-4)
    assert (method(backbone, walk, conditions, draws) - z).abs().max() > 1e-3
