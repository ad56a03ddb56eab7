"""Every setting with a range accepts both bounds, and nothing just beyond."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tiny import losses
from zerocon.core.checks import ConfigError
from zerocon.inversions import (
    DDIMInversion,
    EditFriendlyInversion,
    NegativePromptInversion,
    NullTextInversion,
    RegularizedInversion,
)
from zerocon.losses import CrossAttention, PatchNCE
from zerocon.methods import CDS, DDIM, DDS, P2P, MasaCtrl, PnP, SDEdit, ZeroCon

NEITHER: dict[str, Any] = {}
LOSS = {"loss": losses()}
BOUNDS: list[tuple[Any, dict[str, Any], str, float, float | None]] = [
    *((c, own, "steps", 1, 1000) for c, own in (
        (DDIM, NEITHER), (DDS, NEITHER), (CDS, LOSS), (MasaCtrl, NEITHER), (P2P, NEITHER),
        (PnP, NEITHER), (SDEdit, NEITHER), (ZeroCon, LOSS),
    )),
    *((c, own, "guidance", 0.0, 100.0) for c, own in (
        (DDIM, NEITHER), (DDS, NEITHER), (MasaCtrl, NEITHER), (P2P, NEITHER), (PnP, NEITHER),
        (SDEdit, NEITHER), (ZeroCon, LOSS), (EditFriendlyInversion, NEITHER),
        (NullTextInversion, NEITHER),
    )),
    (DDS, NEITHER, "learning_rate", 0.0, None),
    (DDS, NEITHER, "scale", 0.0, None),
    (DDS, {"last_time": 999}, "first_time", 1, 998),
    (DDS, {"first_time": 1}, "last_time", 2, 999),
    (MasaCtrl, NEITHER, "first_step", 0, 1000),
    (MasaCtrl, NEITHER, "mask_threshold", 0.0, 1.0),
    (P2P, NEITHER, "source_guidance", 0.0, 100.0),
    *((P2P, NEITHER, name, 0.0, 1.0)
      for name in ("cross", "self_attention", "blend_threshold", "blend_start")),
    (PnP, NEITHER, "attention", 0.0, 1.0),
    (PnP, NEITHER, "features", 0.0, 1.0),
    (SDEdit, NEITHER, "strength", 0.0, 1.0),
    (ZeroCon, LOSS, "source_guidance", 0.0, 100.0),
    (ZeroCon, LOSS, "gradient_size", 0.0, None),
    (ZeroCon, LOSS, "gradient_steps", 1, 100),
    (DDIMInversion, NEITHER, "refinements", 0, 100),
    (EditFriendlyInversion, NEITHER, "skip", 0.0, 0.99),
    (NegativePromptInversion, NEITHER, "proximal", 0.0, 1.0),
    (NullTextInversion, NEITHER, "iterations", 1, 1000),
    (NullTextInversion, NEITHER, "learning_rate", 0.0, 10.0),
    (NullTextInversion, NEITHER, "tolerance", 0.0, None),
    (RegularizedInversion, NEITHER, "auto_correlation", 0.0, None),
    (RegularizedInversion, NEITHER, "kl", 0.0, None),
    (RegularizedInversion, NEITHER, "iterations", 0, 1000),
    (RegularizedInversion, NEITHER, "rolls", 1, 1000),
    (CrossAttention, NEITHER, "weight", 0.0, None),
    (PatchNCE, NEITHER, "n_patches", 2, None),
    (PatchNCE, NEITHER, "tau", 1e-4, None),
    (PatchNCE, NEITHER, "background_below", 0.0, 1.0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "others", "name", "low", "high"),
    BOUNDS,
    ids=[f"{make.__name__}-{name}" for make, _, name, _, _ in BOUNDS],
)
def test_bounds(
    make: Any, others: dict[str, Any], name: str, low: float, high: float | None
) -> None:
    beyond = 1 if isinstance(low, int) else 0.05 if high == 0.99 else 1e-5
    for value in (low, high):
        if value is not None:
            assert getattr(make(**others | {name: value}), name) == value
    for value in (low - beyond, None if high is None else high + beyond):
        if value is not None:
            with pytest.raises(ConfigError, match=rf"{name}.* is {value}"):
                make(**others | {name: value})


def test_windows_lie_between_0_and_1() -> None:
    for window in ((-0.1, 0.5), (0.5, 1.1), (0.5, 0.5), (0.1, 0.2, 0.3)):
        with pytest.raises(ConfigError, match="window is"):
            CrossAttention(window=window)  # pyright: ignore[reportArgumentType]
    for word in ([-0.1, 0.5], [0.5, 1.1], [0.6, 0.5], [0.5]):
        with pytest.raises(ConfigError, match=r"cross_words\.red is"):
            P2P(cross_words={"red": word})
    assert P2P(cross_words={"red": [0.5, 0.5]}).cross_words
    assert CrossAttention(window=(0.0, 1.0)).window == (0.0, 1.0)
    with pytest.raises(ConfigError, match="last_time is 60"):
        DDS(first_time=60, last_time=60)


@pytest.mark.parametrize("make", [DDIM, MasaCtrl, P2P, PnP])
def test_a_negative_condition_is_used_where_guidance_is_not_1(make: Any) -> None:
    assert "negative" not in make(guidance=1.0).uses
    assert "negative" in make(guidance=2.0).uses
    assert "negative" in make(guidance=0.5).uses
