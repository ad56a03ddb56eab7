"""Every column, by the packaged judges: known values, and independence of cases."""

from __future__ import annotations

import gc
import math

import pytest
import torch
from metric_pictures import noise
from torch import Tensor

from tests.marks import every
from zerocon.config.bind import metrics_of
from zerocon.config.compose import compose_config, plain
from zerocon.core.cases import Case
from zerocon.core.size import Size
from zerocon.datasets.shapes import ShapesPIE
from zerocon.metrics.base import Column, Metric, Pictures


def metrics(protocol: str = "masked") -> list[Metric]:
    config = plain(compose_config(["metrics=full", f"metrics.protocol={protocol}"]))
    return metrics_of(config)()


def score(judges: list[Metric], cases: list[Case], edited: Tensor) -> dict[str, Tensor]:
    pictures = Pictures.of(cases, edited)
    return {name: values for judge in judges for name, values in judge(pictures).items()}


@pytest.fixture(scope="module")
def judges() -> list[Metric]:
    return metrics()


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Six cases of ShapesPIE with non-empty region and background."""
    dataset = ShapesPIE(20, "test", Size.square(64), root=tmp_path_factory.mktemp("pie") / "shapes")
    found = [dataset.load(case_id) for case_id in dataset.ids]
    both = [case for case in found if case.mask is not None and 0.01 < case.mask.mean() < 0.9]
    return both[:6]


def images(cases: list[Case]) -> Tensor:
    return torch.stack([case.image for case in cases])


def columns(judges: list[Metric]) -> list[Column]:
    return [column for metric in judges for column in metric.columns]


def test_every_column_says_what_it_is(judges: list[Metric]) -> None:
    found = columns(judges)
    assert len({column.name for column in found}) == len(found) == 27
    for column in found:
        assert column.takes
        judged = column.name.startswith(("clip", "lpips", "structure", "dino"))
        assert (len(column.judge) == 16) == judged
        for ending, area in (("_bg", "background"), ("_edited", "edited"), ("_whole", "whole")):
            assert not column.name.endswith(ending) or column.area == area


def test_the_short_sets_come_first_in_the_full_one(judges: list[Metric]) -> None:
    short = metrics_of(plain(compose_config([])))()
    names = [column.name for column in columns(judges)]
    assert [n for n in names if n in {c.name for c in columns(short)}] == [
        c.name for c in columns(short)
    ]


@pytest.mark.parametrize("protocol", every(2, ["masked", "published"]))
def test_identical_pictures(cases: list[Case], protocol: str) -> None:
    found = score(metrics(protocol), cases, images(cases))
    # The published SSIM is in single precision: of flat, dark pictures it keeps three digits.
    rounding = 1e-5 if protocol == "masked" else 1e-3
    for name in found:
        if name.startswith("psnr") and not name.endswith("truth"):
            assert found[name].tolist() == [math.inf] * 6, name
        if name.startswith(("ssim_bg", "ssim_whole", "ssim_edited", "clip_image", "dino")):
            assert found[name].tolist() == pytest.approx([1] * 6, abs=rounding), name
        if name.startswith(("mse", "lpips", "structure")) and not name.endswith("truth"):
            assert found[name].tolist() == pytest.approx([0] * 6, abs=1e-3), name
    assert found["clip_direction"].tolist() == [0] * 6
    assert found["edit_success"].tolist() == [0] * 6
    assert (found["clip_source"] > 50).all()


def test_the_ground_truth(cases: list[Case], judges: list[Metric]) -> None:
    truth = torch.stack([c.ground_truth for c in cases if c.ground_truth is not None])
    found = score(judges, cases, truth)
    assert found["edit_success"].tolist() == [1] * 6
    assert found["psnr_truth"].tolist() == [math.inf] * 6
    assert found["lpips_truth"].tolist() == pytest.approx([0] * 6, abs=1e-3)
    assert found["clip_direction"].mean() > 0.3


@pytest.mark.slow
def test_a_black_picture(cases: list[Case], judges: list[Metric]) -> None:
    """Its squared distance to the source is the source's own square."""
    source = images(cases)
    found = score(judges, cases, torch.zeros_like(source))
    mask = torch.stack([c.mask for c in cases if c.mask is not None]).double()
    square = source.double().square().mean(1, keepdim=True)
    for name, weight in (("bg", 1 - mask), ("edited", mask), ("whole", torch.ones_like(mask))):
        wanted = (square * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))
        torch.testing.assert_close(found[f"mse_{name}"], 1e4 * wanted)
        torch.testing.assert_close(found[f"psnr_{name}"], -10 * wanted.log10())
    assert (found["lpips_whole"] > 100).all()


def test_a_shifted_picture(judges: list[Metric]) -> None:
    """Stripes of period 4 shifted by 2 are their own opposite: the mean square is 1."""
    stripes = (torch.arange(64) // 2 % 2).float().expand(1, 3, 64, 64).contiguous()
    case = Case("stripes", stripes[0], "a red circle", "a blue circle", mask=torch.zeros(1, 64, 64))
    found = score(judges, [case], stripes.roll(2, dims=3))
    assert found["mse_whole"].item() == pytest.approx(1e4)
    assert found["psnr_bg"].item() == pytest.approx(0, abs=1e-9)
    assert found["ssim_whole"].item() < -0.9
    assert found["bg_share"].item() == 1
    assert all(found[n].isnan().all() for n in ("mse_edited", "lpips_edited", "clip_edited"))


@pytest.mark.parametrize("protocol", every(2, ["masked", "published"]))
def test_a_change_inside_the_mask_only(cases: list[Case], protocol: str) -> None:
    mask = torch.stack([c.mask for c in cases if c.mask is not None])
    changed = torch.where(mask > 0, noise(6), images(cases))
    found = score(metrics(protocol), cases, changed)
    assert found["psnr_bg"].tolist() == [math.inf] * 6
    assert found["lpips_bg"].tolist() == pytest.approx([0] * 6, abs=1e-3)
    assert (found["mse_edited"] > 0).all()
    share = mask.double().mean((1, 2, 3)) if protocol == "masked" else 1
    torch.testing.assert_close(found["mse_edited"] * share, found["mse_whole"])


@pytest.mark.parametrize("protocol", ["masked", "published"])
def test_neither_batch_size_nor_order_matter(cases: list[Case], protocol: str) -> None:
    judges, cases = metrics(protocol), cases[:3]
    edited = 0.9 * images(cases) + 0.1 * noise(3, seed=3)
    together = score(judges, cases, edited)
    order = [1, 2, 0]
    mixed = score(judges, [cases[i] for i in order], edited[order])
    alone = score(judges, cases[1:2], edited[1:2])
    for name, values in together.items():
        wanted = pytest.approx(values[order].tolist(), rel=1e-5, abs=1e-5, nan_ok=True)
        assert mixed[name].tolist() == wanted, name
        wanted = pytest.approx(values[1].item(), rel=1e-5, abs=1e-5, nan_ok=True)
        assert alone[name].item() == wanted, name


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(ValueError, match=r"is 'psnr'; it must be one of: psnr_bg"):
        metrics_of(plain(compose_config(["metrics=full", "metrics.pixel.columns=[psnr]"])))()


def alive() -> int:
    """Bytes of all live tensors."""
    gc.collect()
    tensors = [found for found in gc.get_objects() if isinstance(found, Tensor)]
    return sum(found.numel() * found.element_size() for found in tensors)


@pytest.mark.slow
def test_a_batch_leaves_no_tensors_in_memory(cases: list[Case], judges: list[Metric]) -> None:
    """So memory is constant in the number of cases."""
    few = cases[:2]
    score(judges, few, images(few))
    before = alive()
    for share in (0.9, 0.8):
        score(judges, few, share * images(few))
    assert alive() == before
