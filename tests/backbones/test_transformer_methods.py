"""Every method runs on transformers with joint attention, with the sites of conf/usual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.marks import slow_but_for
from tests.pairs import OneCase, valid_inversions
from tests.tiny_transformers import tiny_flux, tiny_flux_parts, tiny_sd3, tiny_sd3_parts
from zerocon.backbones.base import Backbone
from zerocon.config.bind import build, method_of
from zerocon.config.compose import compose_config, plain
from zerocon.config.places import CONF
from zerocon.config.settings import compose_settings
from zerocon.core.cases import Case
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Condition, Draws
from zerocon.core.forward import predict, run_for_taps
from zerocon.core.levels import Level
from zerocon.inversions.ddim import DDIMInversion
from zerocon.losses.base import Losses, Moment, Term
from zerocon.losses.cross_attention import CrossAttention
from zerocon.losses.gradients import Latents, gradients
from zerocon.losses.patch_nce import PatchNCE
from zerocon.methods.zerocon import ZeroCon

SOURCE, TARGET = "a big red circle on a gray background", "a big red star on a gray background"
SIZE = (24, 40)
KINDS: dict[str, dict[str, Any]] = {
    "sd3": {"num_layers": 10},
    "sd35_medium": {"num_layers": 10, "qk_norm": "rms_norm", "dual_attention_layers": (0, 8)},
    "sd35_large": {"num_layers": 14, "qk_norm": "rms_norm", "t5": False},
    "flux": {},
    "flux_schnell": {"schnell": True},
}
EVERY_PAIR = "sd3", "flux"  # of method and inversion; the others run the method's own inversion
Named = tuple[str, OneCase]


def one_case(backbone: Backbone) -> OneCase:
    image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))
    return OneCase(backbone, Case("a", image, SOURCE, TARGET, blend_words=("circle", "star")))


@pytest.fixture(scope="module", params=slow_but_for(EVERY_PAIR, KINDS))
def named(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Named:
    name, folder = request.param, tmp_path_factory.mktemp("parts")
    if name.startswith("flux"):
        return name, one_case(tiny_flux(tiny_flux_parts(folder, **KINDS[name]), size=SIZE))
    parts = tiny_sd3_parts(folder, **KINDS[name])
    return name, one_case(tiny_sd3(parts, size=SIZE, t5_tokens=24))


METHODS = sorted(file.stem for file in (CONF / "method").glob("*.yaml"))
QUICK = ("word_swap", "zerocon", "masactrl masked")
MASKED = ["method=masactrl", "method.steps=2", "method.masked=true", "method.first_step=0"]


def overrides_of(name: str) -> list[str]:
    if name == "masactrl masked":
        return MASKED
    own = ["method.first_step=1"] if name == "masactrl" else []
    return [f"method={name}", "method.steps=2", *own]


def inversions_of(config: dict[str, Any], every: bool) -> dict[str, Any]:
    """Those that the method goes with on this backbone; of them its own, or the first."""
    choices, own = valid_inversions(config, method_of(config)), build(config, "inversion")()
    if every:
        return choices
    kept = [name for name, choice in choices.items() if choice == own] or [*choices]
    return {kept[0]: choices[kept[0]]}


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", slow_but_for(QUICK, [*METHODS, "masactrl masked"]))
def test_every_method_runs_on_pictures_that_are_not_square(
    named: Named, name: str, every: bool
) -> None:
    """With each kind of trajectory; the slow tests, with each inversion."""
    choice, one = named
    config = plain(compose_config([f"backbone={choice}", *overrides_of(name)]))
    assert one.clean.shape == (1, 16, 12, 20)
    inversions = inversions_of(config, every or choice in EVERY_PAIR)
    edits = dict(one.edits(method_of(config), inversions, every=every))
    assert edits
    for inverter, edited in edits.items():
        assert (edited - one.clean).abs().max() > 0, inverter
    assert one.backbone.decode([*edits.values()][-1]).shape == (1, 3, *SIZE)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["backbone=flux", "inversion=null_text"], "told its guidance scale .*classifier_free"),
        (["backbone=flux", "inversion=negative_prompt"], r"what works: inversion=ddim"),
        (["backbone=flux", "inversion=edit_friendly"], "adds noise .* is a flow model"),
        (["backbone=sd3", "method=turbo_edit"], "adds noise .* is a flow model; what works"),
        (
            ["backbone=flux", "method=pnp", "method.negative_prompt=ugly"],
            r"method\.negative_prompt would have no effect: this backbone is told",
        ),
        (
            ["backbone=flux", "method.negative=caption"],
            r"method\.negative would have no effect.*backbone\.guidance=classifier_free",
        ),
        (["backbone=flux", "backbone.guidance=true"], r"backbone\.guidance"),
    ],
)
def test_what_makes_no_sense_on_a_backbone_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose_settings([*overrides, "mixed_worlds=true"])


@pytest.mark.parametrize("choice", ["sd3", "flux"])
def test_what_makes_sense_with_a_negative_row(choice: str) -> None:
    own = ["backbone.guidance=classifier_free"] if choice == "flux" else []
    for more in (["inversion=null_text"], ["method.negative=caption"]):
        compose_settings([f"backbone={choice}", *own, *more, "mixed_worlds=true"])


# A term by itself: over image -> text probabilities, over the results of self-attention, over what
# blocks add to the image tokens; at the blocks with two streams and at those with one.
TERMS: dict[str, Callable[[str], Term]] = {
    "xa": lambda stream: CrossAttention(sites=f"{stream}.*.cross"),
    "cut": lambda stream: PatchNCE(sites=f"{stream}.*.self", n_patches=40),
    "cut of blocks": lambda stream: PatchNCE(
        sites=f"{stream}.*.block", features="features", n_patches=40
    ),
}


def usual_losses(choice: str) -> Losses:
    config = plain(compose_config([f"backbone={choice}", "method=zerocon"]))
    method = method_of(config)
    assert isinstance(method, ZeroCon)
    return method.loss


def check_that_it_pulls(backbone: Backbone, losses: Losses) -> None:
    """A step down the gradient by the noisy latent brings the edit closer to its source."""
    level, draws = backbone.level(0.6), Draws(0, ["a"])
    z = torch.randn(1, 16, 12, 20, generator=torch.Generator().manual_seed(1))
    source, target = backbone.embed([SOURCE]), backbone.embed([TARGET])
    weights, moment = losses.weights(0, 2), Moment(0, 2, draws)
    with torch.no_grad(), losses.watching(backbone.taps, weights, stop=False) as watch:
        predict(backbone, level, {"source": (z, source)})
        reference = watch("source")

    def loss_at(latents: Latents) -> torch.Tensor:
        with losses.watching(backbone.taps, weights, stop=True) as watch:
            run_for_taps(backbone, level, {"target": (latents["target"], target)})
            return losses(watch("target"), reference, weights, moment)

    away = z + 0.3 * torch.randn(z.shape, generator=torch.Generator().manual_seed(2))
    slope = gradients(loss_at, {"target": away}, backbone.dtype)["target"]
    assert slope.isfinite().all()
    assert (slope.flatten(2).abs().amax(2) > 0).all()  # every channel of the latent is reached
    with torch.no_grad():
        before = loss_at({"target": away})
        after = loss_at({"target": away - 0.3 * slope / slope.square().mean().sqrt() * 0.1})
    assert after < before


@pytest.mark.parametrize("term", TERMS)
def test_each_loss_pulls_the_edit(named: Named, term: str) -> None:
    choice, backbone = named[0], named[1].backbone
    streams = ("joint", "single") if choice.startswith("flux") else ("joint",)
    for stream in streams:
        check_that_it_pulls(backbone, Losses(term=TERMS[term](stream)))


def test_the_usual_losses_pull_the_edit(named: Named) -> None:
    choice, backbone = named[0], named[1].backbone
    check_that_it_pulls(backbone, usual_losses(choice))


# Rows of one edit in two steps where the network is told its guidance: one for each prompt.
ROWS = {
    "word_swap": 2 + 2,
    "p2p": 2 + 2 * 2,
    "masactrl": 2 + 2 * 2,
    "pnp": 2 + 2 * 2,
    "zerocon": 2 + 2 * 3,  # the source, the descent, the edit
    "pix2pix_zero": 2 + 2 * 3,
    "h_edit": 2 + 2 * (2 + 3),  # both branches under the source prompt; then the correction
    "turbo_edit": 2 + 2 * 2,
    "dds": 2 * 2,
    "cds": 2 * 3,
    "infedit": 2 * 3,
    "flowedit": 2 * 2,
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> OneCase:
    return one_case(tiny_flux(tiny_flux_parts(tmp_path_factory.mktemp("told")), size=SIZE))


@pytest.mark.parametrize("name", ROWS)
def test_a_network_that_is_told_its_guidance_runs_no_negative_rows(
    told: OneCase, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone: Any = told.backbone
    config = plain(compose_config(["backbone=flux", *overrides_of(name)]))
    asked: list[float] = []
    velocity = backbone._predicted

    def spied(z: torch.Tensor, level: Level, condition: Condition) -> torch.Tensor:
        scale = condition.guidance
        asked.extend([1.0] * len(z) if scale is None else scale.tolist())
        return velocity(z, level, condition)

    monkeypatch.setattr(backbone, "_predicted", spied)
    method = method_of(config)
    trajectory = DDIMInversion()(backbone, told.clean, told.conditions, 2, told.draws)
    if not method.needs_inversion:
        asked.clear()
    method(backbone, trajectory, told.conditions, told.draws)
    assert len(asked) == ROWS[name]
    scales = {"turbo_edit": {1.0}, "h_edit": {1.0, 5.0, 7.5}, "flowedit": {1.5, 5.5}}
    scales |= {"infedit": {1.0, 2.25}} | {n: {3.5} for n in ("dds", "cds")}
    assert {round(a * 4) / 4 for a in asked} == scales.get(name, {1.0, 3.5})
