from __future__ import annotations

import dataclasses
import math
from functools import partial
from random import Random

import pytest
import torch
from lpips import LPIPS
from metric_pictures import batch, noise
from torch import Tensor

from zerocon.core.cases import Case
from zerocon.metrics.base import Pictures
from zerocon.metrics.pixel import PixelDistances
from zerocon.metrics.truth import GroundTruth
from zerocon.shapes.reader import edit_success
from zerocon.shapes.render import render
from zerocon.shapes.scene import Scene, random_scene
from zerocon.shapes.train.perceptual import build


@pytest.fixture(scope="module")
def model() -> LPIPS:
    torch.manual_seed(0)
    return build()


def picture(scene: Scene, side: int = 64) -> Tensor:
    return torch.from_numpy(render(scene, side)).permute(2, 0, 1).float() / 255


def recolored(side: int = 64) -> Case:
    source = random_scene(Random("truth"), things=1)
    thing = source.things[0]
    color = "blue" if thing.color != "blue" else "red"
    target = dataclasses.replace(source, things=(dataclasses.replace(thing, color=color),))
    return Case(
        "recolored",
        picture(source, side),
        "",
        "",
        ground_truth=picture(target, side),
        edit_done=partial(edit_success, source=source, target=target),
    )


@pytest.mark.parametrize("side", [64, 128])
def test_the_ground_truth_succeeds_and_the_source_fails(model: LPIPS, side: int) -> None:
    case = recolored(side)
    assert case.ground_truth is not None
    metric = GroundTruth(model=model)
    right = metric(Pictures.of([case], case.ground_truth[None]))
    assert right["edit_success"].tolist() == [1.0]
    assert right["psnr_truth"].tolist() == [math.inf]
    assert right["lpips_truth"].item() == pytest.approx(0, abs=1e-6)
    wrong = metric(Pictures.of([case], case.image[None]))
    assert wrong["edit_success"].tolist() == [0.0]
    assert wrong["psnr_truth"].item() < 40


def test_columns_declare_that_they_need_a_ground_truth(model: LPIPS) -> None:
    assert all(column.needs_truth for column in GroundTruth(model=model).columns)
    assert not any(column.needs_truth for column in PixelDistances().columns)


def test_without_a_ground_truth_the_value_is_nan(model: LPIPS) -> None:
    scores = GroundTruth(model=model)(batch(noise(2), noise(2)))
    assert all(values.isnan().all() for values in scores.values())


def test_cases_with_and_without_ground_truth_share_a_batch(model: LPIPS) -> None:
    case = recolored()
    assert case.ground_truth is not None
    cases = [case, Case("plain", noise(1)[0], "", "")]
    scores = GroundTruth(model=model)(
        Pictures.of(cases, torch.stack([case.ground_truth, noise(1)[0]]))
    )
    for values in scores.values():
        assert values.isnan().tolist() == [False, True]
