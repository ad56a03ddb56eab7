"""Every setting of methods, inversions and losses: what it accepts, and that it refuses the rest.

The settings are those that the classes have: a new one without a range here fails.
"""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from tests.tiny import losses
from zerocon import inversions, methods
from zerocon import losses as loss_terms
from zerocon.core.checks import ConfigError
from zerocon.inversions import DirectInversion, EditFriendlyInversion, TurboEditInversion
from zerocon.losses import CrossAttention
from zerocon.methods import DDIM, DDS, P2P, MasaCtrl, PnP, RFInversionEdit

ROOMS = (methods, inversions, loss_terms)
CLASSES: list[Any] = [
    c for room in ROOMS for n in room.__all__ if is_dataclass(c := getattr(room, n))
]
SHARE, SCALE, UP, TIMES = (0.0, 1.0), (0.0, 100.0), (0.0, None), (1, 1000)
Range = tuple[float, float | None]

# By the setting's name, or by class and name where it is another's, too.
RANGES: dict[str, Range | None] = {
    **dict.fromkeys(("guidance", "source_guidance", "correction_guidance", "omega"), SCALE),
    **dict.fromkeys(
        ("alpha", "attention", "background_below", "blend_start", "blend_threshold", "cross", "eta",
         "features", "gamma", "inject", "mask_threshold", "mvg", "proximal", "pull", "sampled",
         "self_attention", "share", "spare_threshold", "start", "stop", "strength", "text",
         "threshold", "values"), SHARE
    ),
    **dict.fromkeys(
        ("auto_correlation", "blend_noise", "gradient_scale", "gradient_size", "kl", "last_rms",
         "learning_rate", "reconstruction", "scale", "tolerance", "weight"), UP
    ),
    **dict.fromkeys(("averages", "iterations", "rolls", "steps"), TIMES),
    **dict.fromkeys(("corrections", "evaluations", "gradient_steps"), (1, 100)),
    "NullTextInversion.learning_rate": (0.0, 10.0),
    "RegularizedInversion.iterations": (0, 1000),
    "blend_weight": None,
    "first_step": (0, 1000),
    "first_time": (1, 998),
    "last_time": (2, 999),
    "n_patches": (2, None),
    "refinements": (0, 100),
    "every": (1, 1000),
    "shift": (0.0, 1000.0),
    "skip": (0.0, 0.99),
    "tau": (1e-4, None),
}  # fmt: skip
# What else has to be set, so that the whole range is allowed.
OTHERS: dict[str, dict[str, Any]] = {
    "CDS": {"loss": losses()},
    "ZeroCon": {"loss": losses()},
    "InfEdit.strength": {"start": "picture"},
    "FlowEdit.sampled": {"strength": 1.0},
    "RFInversionEdit.start": {"stop": 1.0},
    "first_time": {"last_time": 999},
    "last_time": {"first_time": 1},
}


def settings_of(make: Any) -> list[tuple[str, Any]]:
    """(name, type) of each; of `int | None` the int."""
    hints = get_type_hints(make)
    return [(field.name, _without_none(hints[field.name])) for field in fields(make)]


def _without_none(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is UnionType else hint


def others_of(make: Any, name: str) -> dict[str, Any]:
    keys = (make.__name__, name, f"{make.__name__}.{name}")
    return {setting: value for key in keys for setting, value in OTHERS.get(key, {}).items()}


def refused(make: Any, name: str, value: object, others: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"{name}\b.* is {re.escape(repr(value))}"):
        make(**others | {name: value})


@pytest.mark.parametrize("make", CLASSES)
def test_a_number_may_be_at_its_bounds_but_not_beyond(make: Any) -> None:
    for name, kind in settings_of(make):
        if kind not in (int, float):
            continue
        assert name in RANGES, f"{make.__name__}.{name} has no range in this file"
        given = RANGES.get(f"{make.__name__}.{name}", RANGES[name])
        others = others_of(make, name)
        if given is None:
            continue
        low, high = given
        beyond = 1 if kind is int else 0.05 if high == 0.99 else 1e-5
        assert getattr(make(**others | {name: low}), name) == low
        refused(make, name, low - beyond, others)
        if high is not None:
            assert getattr(make(**others | {name: high}), name) == high
            refused(make, name, high + beyond, others)


@pytest.mark.parametrize("make", CLASSES)
def test_a_choice_is_one_of_those_there_are_and_sites_are_some(make: Any) -> None:
    for name, kind in settings_of(make):
        others = OTHERS.get(make.__name__, {})
        if get_origin(kind) is Literal:
            refused(make, name, "neither", others)
        if name.endswith("sites"):
            with pytest.raises(ConfigError, match="'up 1' chooses no sites"):
                make(**others | {name: "up 1"})


def test_windows_lie_between_0_and_1() -> None:
    for window in ((-0.1, 0.5), (0.5, 1.1), (0.5, 0.5), (0.1, 0.2, 0.3)):
        with pytest.raises(ConfigError, match="window is"):
            CrossAttention(window=window)  # pyright: ignore[reportArgumentType]
    for word in ([-0.1, 0.5], [0.5, 1.1], [0.6, 0.5], [0.5]):
        with pytest.raises(ConfigError, match=r"cross_words\.red is"):
            P2P(cross_words={"red": word})
    assert P2P(cross_words={"red": [0.5, 0.5]}).cross_words
    assert CrossAttention(window=(0.0, 1.0)).window == (0.0, 1.0)


def test_what_goes_together_is_in_order() -> None:
    with pytest.raises(ConfigError, match="last_time is 60"):
        DDS(first_time=60, last_time=60)
    with pytest.raises(ConfigError, match=r"stop is 0\.2"):
        RFInversionEdit(start=0.3, stop=0.2)
    with pytest.raises(ConfigError, match="refinements and as many steps"):
        DirectInversion(walk="uni_inv", refinements=1)
    for make in (EditFriendlyInversion, TurboEditInversion):
        with pytest.raises(ConfigError, match="skip is 1, which leaves no step"):
            make(skip=1.0)


@pytest.mark.parametrize("make", [DDIM, MasaCtrl, P2P, PnP])
def test_a_negative_condition_is_used_where_guidance_is_not_1(make: Any) -> None:
    assert "negative" not in make(guidance=1.0).uses
    assert "negative" in make(guidance=2.0).uses
    assert "negative" in make(guidance=0.5).uses
