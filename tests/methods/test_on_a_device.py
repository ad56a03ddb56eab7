"""Methods and inversions where the network is on a device of its own.

torch's meta device computes shapes only. Like a GPU, it refuses tensors that were left on the
processor, and it can't be asked for a value, for which a GPU would have to be waited for.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.marks import slow_but_for
from tests.pairs import valid_inversions
from tests.tiny import tiny_parts
from tests.tiny_transformers import tiny_flux_parts, tiny_sd3_parts
from zerocon.backbones.base import Backbone
from zerocon.backbones.flux import FluxBackbone
from zerocon.backbones.sd3 import SD3Backbone
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.config.bind import build, method_of
from zerocon.config.compose import compose_config, plain
from zerocon.config.places import CONF
from zerocon.core.cases import Case
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.prompts import words_of

SOURCE, TARGET = "a big red circle on a gray background", "a big red star on a gray background"
META, SINGLE = torch.device("meta"), torch.float32
QUICK = ("pnp", "sd15")
METHODS = sorted(file.stem for file in (CONF / "method").glob("*.yaml"))


@pytest.fixture(scope="module", params=slow_but_for(QUICK, ["sd15", "sd3", "flux"]))
def named(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("parts")
    if request.param == "sd15":
        parts = tiny_parts(folder)
        return "sd15", StableDiffusionBackbone(parts, "sd15", META, SINGLE, "")
    if request.param == "sd3":
        return "sd3", SD3Backbone(
            tiny_sd3_parts(folder, num_layers=10), "sd3", META, SINGLE, "", (32, 32)
        )
    return "flux", FluxBackbone(tiny_flux_parts(folder), "flux", META, SINGLE, "", (32, 32))


def inputs(backbone: Backbone) -> tuple[Any, Conditions, Draws]:
    side = 32
    case = Case("a", torch.rand(3, side, side), SOURCE, TARGET, blend_words=("circle", "star"))
    conditions = Conditions(
        *(backbone.embed([prompt]) for prompt in (SOURCE, TARGET, "")),
        [words_of(backbone, case)],
        torch.ones(1, 1, side, side, device=META),
    )
    return backbone.encode(case.image[None]), conditions, Draws(0, ["a"])


@pytest.mark.parametrize("name", slow_but_for(QUICK, METHODS))
def test_a_method_never_leaves_the_device(
    named: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice, backbone = named
    steps, more = 2, ["method.first_step=1"] if name == "masactrl" else []
    config = plain(
        compose_config([f"backbone={choice}", f"method={name}", f"method.steps={steps}", *more])
    )
    if name == "infedit":  # it looks at the words' embeddings, once and before its steps
        monkeypatch.setattr(F, "cosine_similarity", lambda *_: 0.5)
    method = method_of(config)
    own, found = build(config, "inversion")(), [*valid_inversions(config, method).values()]
    inversion = own if own in found else found[0]
    clean, conditions, draws = inputs(backbone)
    trajectory = inversion(backbone, clean, conditions, steps, draws)
    edited = method(backbone, trajectory, conditions, draws)
    assert edited.device == META
    assert backbone.decode(edited).device == META
