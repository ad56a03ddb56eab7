"""Delta and Contrastive Denoising Score: random numbers and settings. The rule: tests/parity."""

from __future__ import annotations

from dataclasses import replace as with_fields

import pytest
import torch

from tests.methods.edits import given, same
from tests.tiny import losses
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Draws
from zerocon.methods.cds import CDS
from zerocon.methods.dds import DDS

CUT = losses(xa_weight=0.0, weight=3.0, query="reference")


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


def test_times_are_per_batch_and_noise_per_case() -> None:
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
