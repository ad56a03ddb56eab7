"""Delta and Contrastive Denoising Score: one descent by hand, whose numbers are whose."""

from __future__ import annotations

from dataclasses import replace as with_fields

import pytest
import torch

from tests.methods.edits import given, same, watched
from tests.tiny import eps, losses
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Draws
from zerocon.core.forward import predict
from zerocon.core.levels import Level
from zerocon.core.taps import record
from zerocon.losses.patch_nce import patch_nce, pooled
from zerocon.methods import dds
from zerocon.methods.cds import CDS
from zerocon.methods.dds import DDS

CUT = losses(xa_weight=0.0, weight=3.0, query="reference")


def test_one_descent_by_hand(
    backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = DDS(steps=1, guidance=2.0)
    start = given(backbone, method, [0, 1])
    levels: list[Level] = []
    monkeypatch.setattr(dds, "predict", lambda b, t, r: levels.append(t) or predict(b, t, r))
    edited = start.run(method)

    (level,) = levels
    time = int(level.time)
    assert level == backbone.level(time / 1000)
    clean, conditions = start.trajectory.clean, start.conditions
    noisy = level.mix(clean, start.draws.normal_like(clean, "noise/0"))
    with torch.no_grad():
        empty = eps(backbone, noisy, time, conditions.negative)
        source = eps(backbone, noisy, time, conditions.source)
        target = eps(backbone, noisy, time, conditions.target)
    delta = 2.0 * (target - empty) - 2.0 * (source - empty)
    assert same(edited, clean - 0.1 * 2000 / 256 * delta, 1e-4)


@pytest.mark.parametrize("method", [DDS(steps=3), CDS(steps=1, loss=CUT)])
def test_the_same_prompt_edits_nothing(backbone: StableDiffusionBackbone, method: DDS) -> None:
    start = given(backbone, method, [0, 1])
    source = start.conditions.source
    start.conditions = with_fields(start.conditions, target=source)
    moved = (start.run(method) - start.trajectory.clean).abs().max()
    # DDS's rows are equal; CUT still has a slope, as patches resemble other patches, too.
    assert moved < (1e-4 if type(method) is DDS else 0.1)


def test_without_weight_cds_is_dds(backbone: StableDiffusionBackbone) -> None:
    none = losses(xa_weight=0.0, weight=0.0)
    start = given(backbone, DDS(steps=2), [0, 1])
    assert torch.equal(start.run(CDS(steps=2, loss=none)), start.run(DDS(steps=2)))


def test_cds_adds_the_slope_of_the_contrastive_loss(
    backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = given(backbone, DDS(steps=1), [0, 1])
    passes = watched(monkeypatch, dds, "up.*.self", "output")
    levels: list[Level] = []
    spy = dds.predict
    monkeypatch.setattr(dds, "predict", lambda b, t, r: levels.append(t) or spy(b, t, r))
    extra = start.run(CDS(steps=1, loss=CUT)) - start.run(DDS(steps=1))

    reference = [roles["source"] for roles in passes[0].after.values()]
    clean, noise = (
        start.trajectory.clean,
        start.draws.normal_like(start.trajectory.clean, "noise/0"),
    )
    z = clean.clone().requires_grad_()
    with record(backbone.taps, "up.*.self", "output") as seen:
        backbone.predict(levels[0].mix(z, noise), levels[0], start.conditions.target)
    loss = sum(
        patch_nce(*(pooled(f, size, site.grid) for f in (v, v_ref)), 0.07, "reference").sum()
        for site, v, v_ref in zip(seen.sites, seen.of("all"), reference, strict=True)
        for size in (1, 2)
    )  # 16 x 16 positions at most: all 256 patches are taken, in whatever order
    (slope,) = torch.autograd.grad(torch.as_tensor(loss), z)
    assert slope.abs().max() > 1e-3
    assert same(extra, -0.1 * 3.0 * slope, 1e-4)


def test_times_are_the_batchs_noise_is_the_cases() -> None:
    method = DDS(first_time=50, last_time=60)
    times = {method._time(i, seed=0) for i in range(200)}  # pyright: ignore[reportPrivateUsage]
    assert times == set(range(50, 60))
    drawn = [[method._time(i, seed) for i in range(20)] for seed in (0, 0, 1)]  # pyright: ignore[reportPrivateUsage]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]  # the run's seed decides them
    zeros = torch.zeros(2, 4, 2, 2)
    noise = Draws(0, ["a", "b"]).normal_like(zeros, "noise/0")
    assert not torch.equal(noise[0], noise[1])


def test_the_seed_changes_the_edit(backbone: StableDiffusionBackbone) -> None:
    method = DDS(steps=1)
    first, second = (given(backbone, method, [0], seed=seed).run(method) for seed in (0, 1))
    assert not same(first, second, 1e-3)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"method.last_time is 20; it must be more than"):
        DDS(last_time=20)
