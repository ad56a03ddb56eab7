"""Conditions and random numbers, on values worked out by hand."""

from __future__ import annotations

import torch

from zerocon.core.conditions import Condition, Draws


def test_one_condition_can_be_joined_with_nothing() -> None:
    one = Condition(torch.rand(2, 3, 4), pooled=torch.rand(2, 5))
    cases = (Condition.cat([one]), one.tokens), (Condition.stack([one]), one.tokens[None])
    for joined, expected in cases:
        assert torch.equal(joined.tokens, expected)
        assert joined.pooled is not None
        assert joined.guidance is None


def test_the_seed_of_a_case_and_purpose() -> None:
    """The first seven bytes of SHA-256 of "3/a/noise": numbers of earlier runs stay theirs."""
    draws = Draws(3, ["b", "a"])
    assert draws.generator("a", "noise").initial_seed() == 0x219312B8C28AAA
    again = torch.Generator().manual_seed(0x219312B8C28AAA)
    expected = torch.randn(4, 2, generator=again)
    assert torch.equal(draws.normal_like(torch.zeros(2, 4, 2), "noise")[1], expected)
