"""Incompatible choices are refused when composing; everything else runs."""

from __future__ import annotations

import pytest
import torch

from tests.marks import slow_but_for
from tests.pairs import STEPS, OneCase, valid_inversions
from zerocon.backbones.shapes import Shapes
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.config.bind import method_of
from zerocon.config.compatibility import every_method, fits, pairs, refusals
from zerocon.config.compose import compose_config, plain
from zerocon.config.places import CONF
from zerocon.config.settings import compose_settings
from zerocon.core.cases import Case
from zerocon.core.checks import ConfigError
from zerocon.core.registry import register
from zerocon.reports.combinations import combination_grids
from zerocon.reports.layout import width_of
from zerocon.reports.render import to_markdown

METHODS = sorted(file.stem for file in (CONF / "method").glob("*.yaml"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["method=zerocon", "inversion=none"], "ZeroCon samples .* NoInversion makes none"),
        (
            ["method=word_swap", "inversion=direct"],
            "DDIM samples no source branch .*=ddim",
        ),
        (["method=reconstruct", "inversion=null_text"], "uses no empty condition .*=ddim"),
        (["inversion=negative_prompt", "method.guidance=1"], "NegativePrompt.* no effect"),
        (
            ["method=zerocon", "method.negative=caption", "inversion=null_text"],
            "negative prompt of its own",
        ),
        (
            [
                "method=word_swap",
                "inversion=null_text",
                "inversion.guidance=7",
                "method.guidance=3",
            ],
            "fitted to guidance 7, but DDIM samples with method.guidance=3; leave",
        ),
        (["method=reconstruct", "direction=prompt_pair"], "PromptPair.* direction=word_swap$"),
        (["method=p2p", "direction=sentences"], "direction=prompt_pair, word_swap"),
        (["method=p2p", "direction=prompt_pair", "direction.pooled=true"], "target prompt's words"),
        (["method=flowedit", "inversion=ddim"], "starts from the picture itself.*=none$"),
        (
            ["method=uniedit", "inversion=direct"],
            "UniEdit samples no source .*=ddim.*uni_inv",
        ),
        (
            ["method=pnp", "method.source=late", "inversion=rf_solver"],
            "source for the sampler's levels only, and RFSolver.*what works: .*uni_inv",
        ),
        (
            [
                "method=pnp",
                "method.source=late",
                "inversion=direct",
                "inversion.walk=fireflow",
            ],
            "DirectInversion asks between them",
        ),
        (["method=sdedit", "inversion=edit_friendly"], "what works: inversion=none$"),
        (["method=infedit", "inversion=ddim"], "InfEdit starts from the picture itself.*=none$"),
        (["method=infedit", "direction=sentences"], "direction=prompt_pair, word_swap"),
        (
            ["method=turbo_edit", "inversion=direct"],
            "samples no source .*edit_friendly.*turbo_edit",
        ),
        (["method=turbo_edit", "inversion=null_text"], "TurboEdit uses no empty condition"),
        (["method=h_edit", "direction=sentences"], "direction=prompt_pair, word_swap"),
        (
            ["+experiment=turbo_edit_published_3", "method.steps=4"],
            r"inversion\.times has 3 times, but method\.steps is 4",
        ),
    ],
)
def test_incompatible_choices_are_refused_with_alternatives(
    overrides: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        compose_settings(overrides)


def test_uni_inv_inverts_uni_edits_share_of_steps() -> None:
    settings = compose_settings(["method=uniedit", "method.share=0.4"])
    assert settings.config["inversion"]["share"] == 0.4
    assert compose_settings(["inversion=uni_inv"]).config["inversion"]["share"] == 1.0


def test_null_text_follows_the_methods_guidance() -> None:
    settings = compose_settings(["inversion=null_text", "method.guidance=3"])
    assert settings.config["inversion"]["guidance"] == 3


def test_the_tables_agree_with_composing() -> None:
    rows = [fits("word_swap"), fits("sdedit")]
    said = pairs(rows)
    assert list(said["inversions"]) == ["word_swap", "sdedit"]
    assert said["inversions"]["word_swap"]["ddim"] == "yes"
    assert said["inversions"]["word_swap"]["direct"] == "–"
    names = ["caption", "file", "prompt_pair", "sentences", "word_swap"]
    assert list(said["directions"]["sdedit"]) == names
    assert any(line.startswith("word_swap with inversion=direct") for line in refusals(rows))


@pytest.mark.slow
def test_every_method_has_a_compatible_inversion() -> None:
    rows = every_method()
    assert [row.method for row in rows] == METHODS
    for row in rows:
        for reasons in row.inversions.values():  # on every kind of backbone
            assert "" in reasons.values()
        assert row.directions["word_swap"] == ""
    page = (CONF.parent / "docs" / "inversions.md").read_text()
    printed = to_markdown(combination_grids(pairs(rows), terminal=False))
    assert printed in page, "put `zerocon combinations --markdown` into docs/inversions.md"
    assert all(width_of(grid) <= 80 for grid in combination_grids(pairs(rows), terminal=True))


QUICK = ("word_swap", "zerocon", "flowedit")


@pytest.fixture(scope="module")
def one(backbone: StableDiffusionBackbone) -> OneCase:
    prompts = ("a big red circle on a gray background", "a big red house on a gray background")
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    return OneCase(backbone, Case("a", image, *prompts, blend_words=("circle", "house")))


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", slow_but_for(QUICK, METHODS))
def test_every_valid_pair_runs(one: OneCase, name: str, every: bool) -> None:
    """With each kind of trajectory; the slow tests, with each inversion."""
    config = plain(compose_config([f"method={name}", f"method.steps={STEPS}"]))
    method = method_of(config)
    inversions = valid_inversions(config, method)
    done = len(list(one.edits(method, inversions, every=every)))
    assert done == len(inversions) if every else 1 <= done <= len(inversions)


@register("backbone")
class Flow(Shapes):
    """Composes as a flow model."""

    flow = True


@pytest.mark.parametrize(
    "own",
    [
        ["method=word_swap", "inversion=edit_friendly"],
        ["method=turbo_edit"],
        ["method=h_edit"],
    ],
)
def test_noise_maps_are_refused_on_a_flow_model(own: list[str]) -> None:
    flow = f"backbone._target_={Flow.__module__}.Flow"
    compose_settings(own)
    with pytest.raises(ConfigError, match=r"this backbone is a flow model; what works: .*ddim"):
        compose_settings([flow, *own])
    compose_settings([flow, own[0], "inversion=ddim"])


def test_infedit_and_h_edit_d_go_with_a_flow_model() -> None:
    """They need no η = 1 steps."""
    flow = f"backbone._target_={Flow.__module__}.Flow"
    compose_settings([flow, "method=infedit"])
    compose_settings([flow, "+experiment=h_edit_d_published"])
