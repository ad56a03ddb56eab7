"""Ranges and choices of settings, and their messages."""

from __future__ import annotations

import math

import pytest

from zerocon.core.checks import ConfigError, in_range, one_of, shown


@pytest.mark.parametrize("value", [1, 2.5, 4])
def test_a_range_includes_its_ends(value: float) -> None:
    in_range("x", value, 1, 4)


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (0.9, 1, 4, "x is 0.9; it must be between 1 and 4"),
        (4.1, 1, 4, "x is 4.1; it must be between 1 and 4"),
        (0.9, 1, math.inf, "x is 0.9; it must be at least 1"),
        (4.1, -math.inf, 4, "x is 4.1; it must be at most 4"),
        (math.nan, 1, 4, "x is nan; it must be between 1 and 4"),
        (math.inf, 1, math.inf, "x is inf; it must be at least 1"),
    ],
)
def test_values_outside_a_range_are_named(value: float, low: float, high: float, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        in_range("x", value, low, high)
    assert str(caught.value) == said


def test_choices() -> None:
    one_of("x", "a", ("a", "b"))
    with pytest.raises(ConfigError, match="x is 'c'; it must be one of: a, b"):
        one_of("x", "c", ("a", "b"))


def test_long_values_are_cut_where_a_message_shows_them() -> None:
    assert shown("ab") == "'ab'"
    assert shown("a" * 118) == repr("a" * 118)  # 120 characters with its quotes
    assert shown("a" * 119) == f"'{'a' * 119}… (121 characters)"
    assert shown([[[[1]]]]) == "[[[[...]]]]"  # and not deeper than three lists
