"""What trackers are shown: losses over the steps, attention maps. Edits stay as they are."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from zerocon.backbones.loading import Parts
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.config.settings import compose_settings
from zerocon.core.cases import Case
from zerocon.core.size import Size
from zerocon.runs.shown import maps_of, similarity_of, wanted, watching
from zerocon.runs.worker import edit

CASES = [
    Case(name, torch.full((3, 32, 32), shade), "a red circle", "a blue circle")
    for name, shade in (("a", 0.3), ("b", 0.6))
]


def test_curves_hold_each_loss_at_each_step(backbone: StableDiffusionBackbone) -> None:
    settings = compose_settings(
        ["method.steps=4", "direction=prompt_pair", "loss.cut.window=[0,0.5]", "loss.n_patches=4",
         "runner.cache=0"], worlds="edit",
    )  # fmt: skip
    plain = edit(settings, backbone, CASES)
    with watching(settings, on=True) as watcher:
        watched = edit(settings, backbone, CASES)
    assert torch.equal(plain, watched)
    curves = watcher.curves(len(CASES))
    assert len(curves) == 2
    for curve in curves:
        assert [len(values) for values in (curve["xa"], curve["cut"])] == [4, 4]
        acts = torch.tensor(curve["cut"]).isfinite().tolist()
        assert acts == [True, True, False, False]
    assert settings.method.loss.watcher is None  # type: ignore[attr-defined]


def test_maps_show_where_words_are_attended_to(backbone: StableDiffusionBackbone) -> None:
    before = backbone.evaluations.forward
    maps = maps_of(backbone, CASES[0], CASES[1].image, seed=0)
    assert {name for name in maps if "circle" in name} == {
        "map source: circle", "map edited: circle",
    }  # fmt: skip
    for pixels in maps.values():
        assert (pixels.shape, pixels.dtype, pixels.max()) == ((32, 32), "uint8", 255)
    assert backbone.evaluations.forward == before + 2


def test_maps_have_the_pictures_shape(parts: Parts) -> None:
    cpu, size = torch.device("cpu"), Size(32, 48)
    wide = StableDiffusionBackbone(copy.deepcopy(parts), "wide", cpu, torch.float32, "", size)
    case = replace(CASES[0], image=torch.full((3, *size), 0.3))
    maps = maps_of(wide, case, 1 - case.image, seed=0)
    assert {pixels.shape for pixels in maps.values()} == {size}
    same = similarity_of(wide, case, case.image, "self", seed=0)
    assert same.shape == size


@pytest.mark.parametrize(("maps", "names"), [(0, []), (2, ["a", "b"]), (9, ["a", "b", "c"])])
def test_the_first_cases_are_shown(maps: int, names: list[str]) -> None:
    settings = compose_settings(["tracker=tensorboard", f"tracker.maps={maps}"])
    assert wanted(settings, "maps", ["a", "b", "c"]) == frozenset(names)
    assert not wanted(compose_settings([]), "maps", ["a", "b", "c"])
