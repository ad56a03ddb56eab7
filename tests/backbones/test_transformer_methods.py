"""Every method runs on transformers with joint attention, with the sites of conf/usual."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.tiny_transformers import tiny_sd3, tiny_sd3_parts
from zerocon.backbones.base import Backbone
from zerocon.config.bind import build, method_of
from zerocon.config.compose import compose_config, plain
from zerocon.config.places import CONF
from zerocon.core.cases import Case
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.prompts import words_of

SOURCE, TARGET = "a big red circle on a gray background", "a big red star on a gray background"
SIZE = (24, 40)
KINDS: dict[str, dict[str, Any]] = {
    "sd3": {"num_layers": 10},
    "sd35_medium": {"num_layers": 10, "qk_norm": "rms_norm", "dual_attention_layers": (0, 8)},
    "sd35_large": {"num_layers": 14, "qk_norm": "rms_norm", "t5": False},
}


@pytest.fixture(scope="module", params=KINDS)
def named(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Backbone]:
    parts = tiny_sd3_parts(tmp_path_factory.mktemp("sd3"), **KINDS[request.param])
    return request.param, tiny_sd3(parts, size=SIZE)


METHODS = sorted(file.stem for file in (CONF / "method").glob("*.yaml"))
MASKED = ["method=masactrl", "method.steps=2", "method.masked=true", "method.first_step=0"]


def overrides_of(name: str) -> list[str]:
    if name == "masactrl masked":
        return MASKED
    own = ["method.first_step=1"] if name == "masactrl" else []
    return [f"method={name}", "method.steps=2", *own]


@pytest.mark.parametrize("name", [*METHODS, "masactrl masked"])
def test_every_method_runs_on_pictures_that_are_not_square(
    named: tuple[str, Backbone], name: str
) -> None:
    choice, backbone = named
    config = plain(compose_config([f"backbone={choice}", *overrides_of(name)]))
    method, inversion = method_of(config), build(config, "inversion")()
    image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))
    case = Case("a", image, SOURCE, TARGET, blend_words=("circle", "star"))
    clean = backbone.encode(image[None])
    assert clean.shape == (1, 16, 12, 20)
    conditions = Conditions(
        *(backbone.embed([prompt]) for prompt in (SOURCE, TARGET, "")), [words_of(backbone, case)]
    )
    draws = Draws(0, ["a"])
    trajectory = inversion(backbone, clean, conditions, 2, draws)
    edited = method(backbone, trajectory, conditions, draws)
    assert edited.shape == clean.shape
    assert edited.isfinite().all()
    assert (edited - clean).abs().max() > 0
    assert backbone.decode(edited).shape == (1, 3, *SIZE)
