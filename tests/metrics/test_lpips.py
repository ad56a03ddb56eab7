from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lpips import LPIPS
from metric_pictures import batch, left_half, noise
from safetensors.torch import save_file
from torchmetrics.functional.image.lpips import _LPIPS

from zerocon.core.size import Size
from zerocon.metrics.base import ProtocolName
from zerocon.metrics.lpips import (
    PerceptualDistance,
    PublishedNet,
    lpips_distance,
    lpips_features,
    lpips_from,
    lpips_map,
)
from zerocon.shapes.train.perceptual import build


@pytest.fixture(scope="module")
def model() -> LPIPS:
    torch.manual_seed(0)
    return build()


def test_agrees_with_the_package(model: LPIPS) -> None:
    a, b = noise(2), noise(2, seed=1)
    with torch.no_grad():
        wanted = model(2 * a - 1, 2 * b - 1).flatten()
        model.spatial = True
        wanted_map = model(2 * a - 1, 2 * b - 1)
        model.spatial = False
    seen = [lpips_features(model, x) for x in (a, b)]
    torch.testing.assert_close(lpips_distance(model, *seen).float(), wanted)
    torch.testing.assert_close(lpips_map(model, *seen, size=Size.square(64)), wanted_map)


@pytest.mark.parametrize("net", ["squeeze", pytest.param("alex", marks=pytest.mark.slow)])
def test_agrees_with_torchmetrics_on_the_published_heads(tmp_path: Path, net: PublishedNet) -> None:
    torch.manual_seed(0)
    theirs = _LPIPS(pretrained=True, net=net, pnet_rand=True, use_dropout=True)
    depth = 2 if net == "squeeze" else 1  # of the names that hold the parts
    state = {k.split(".", depth)[depth]: v for k, v in theirs.net.state_dict().items()}
    classifier = {"classifier.1.weight": torch.zeros(3)}  # torchvision's file has one
    save_file(
        {f"features.{k}": v for k, v in state.items()} | classifier, tmp_path / "trunk.safetensors"
    )
    ours = lpips_from(net, tmp_path / "trunk.safetensors")
    a, b = noise(2), noise(2, seed=1)
    with torch.no_grad():
        wanted = theirs(2 * a - 1, 2 * b - 1).flatten()
    found = lpips_distance(ours, lpips_features(ours, a), lpips_features(ours, b))
    torch.testing.assert_close(found.float(), wanted)


@pytest.mark.parametrize("protocol", ["masked", "published"])
def test_the_background_does_not_see_the_edit(model: LPIPS, protocol: ProtocolName) -> None:
    a, other, mask = noise(1), noise(1, seed=1), left_half()
    scores = PerceptualDistance(protocol=protocol, model=model)(
        batch(a, torch.where(mask > 0, other, a), mask)
    )
    assert scores["lpips_bg"].item() == 0
    assert scores["lpips_whole"].item() > 0


def test_protocols_differ_where_the_background_changed(model: LPIPS) -> None:
    pictures = batch(noise(1), noise(1, seed=1), left_half())
    masked, published = (
        PerceptualDistance(protocol=p, model=model)(pictures)["lpips_bg"].item()
        for p in ("masked", "published")
    )
    assert masked > 1.2 * published > 0


@pytest.mark.parametrize("protocol", ["masked", "published"])
def test_without_a_mask_the_background_is_nan(model: LPIPS, protocol: ProtocolName) -> None:
    scores = PerceptualDistance(protocol=protocol, model=model)(batch(noise(1), noise(1, seed=1)))
    assert scores["lpips_bg"].isnan().item()
    assert not scores["lpips_whole"].isnan().item()


def test_a_case_scores_the_same_alone_and_in_a_batch(model: LPIPS) -> None:
    a, b = noise(3), noise(3, seed=1)
    metric = PerceptualDistance(model=model)
    together = metric(batch(a, b, left_half()))
    alone = metric(batch(a[1:2], b[1:2], left_half()))
    for name, values in alone.items():
        assert values.item() == pytest.approx(together[name][1].item(), rel=1e-5)
