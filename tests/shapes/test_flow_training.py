"""The flow transformer's training: one token in place of many, and training times."""

from __future__ import annotations

import pytest
import torch

from zerocon.shapes.train.ahead import Ahead
from zerocon.shapes.train.flow import CONTEXT, ZEROS, OneZero, build, times
from zerocon.shapes.train.text import WIDTH


@torch.no_grad()
def test_one_zero_token_counts_as_the_pipelines_256() -> None:
    torch.manual_seed(0)
    model = build().double()
    for parameter in model.parameters():
        parameter.normal_(std=0.05)
    tokens, pooled = torch.randn(2, CONTEXT, 2 * WIDTH), torch.randn(2, 2 * WIDTH)
    latents, t = torch.randn(2, 4, 16, 16), torch.tensor([100.0, 900.0])

    def seen(zeros: int) -> torch.Tensor:
        text = torch.cat([tokens, torch.zeros(2, zeros, 2 * WIDTH)], 1)
        parts = [part.double() for part in (latents, text, pooled, t)]
        return model(*parts, return_dict=False)[0]

    as_published = seen(ZEROS)
    model.set_attn_processor(OneZero())
    torch.testing.assert_close(seen(1), as_published, rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_the_initial_network_predicts_zero() -> None:
    text = torch.randn(1, CONTEXT, 2 * WIDTH)
    pooled = torch.randn(1, 2 * WIDTH)
    out = build()(torch.randn(1, 4, 16, 16), text, pooled, torch.tensor([500.0]), return_dict=False)
    assert out[0].abs().max() == 0


def test_times_lie_in_the_middle_and_reach_the_ends() -> None:
    drawn = times(20_000, torch.Generator().manual_seed(0))
    assert 0 < drawn.min() < 0.001
    assert 0.999 < drawn.max() < 1
    inside = ((drawn > 0.25) & (drawn < 0.75)).float().mean().item()
    # Two thirds of P(|N(0, 1)| < ln 3) = 0.728, and a third of a half.
    assert inside == pytest.approx(2 / 3 * 0.728 + 1 / 6, abs=0.01)


@pytest.mark.parametrize("processes", [0, 2])
def test_batches_drawn_ahead_are_those_of_their_step(processes: int) -> None:
    def draw(step: int) -> tuple[int, float]:
        return step, torch.rand(1, generator=torch.Generator().manual_seed(step)).item()

    with Ahead(draw, processes) as batches:
        # A continued training starts somewhere.
        assert [batches(step) for step in range(7, 20)] == [draw(step) for step in range(7, 20)]


def test_an_error_in_a_drawing_process_reaches_the_training() -> None:
    def draw(step: int) -> int:
        return 1 // (3 - step)

    with Ahead(draw, processes=2) as batches:
        assert batches(2) == 1
        with pytest.raises(ZeroDivisionError):
            batches(3)
