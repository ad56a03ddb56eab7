"""Which method, inversion and direction make sense together, from what their classes declare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zerocon.directions.base import Direction
from zerocon.directions.word_swap import WordSwap
from zerocon.inversions.base import FittedToGuidance, Inversion, Provided
from zerocon.methods.base import Method

# Of each thing that an inversion provides: why a method may have no use for it.
_UNUSED: dict[Provided, str] = {
    "trajectory": "{method} starts from the picture itself",
    "negative": "{method} asks for no empty condition here (its guidance is 1, or it has a "
    "negative prompt of its own)",
    "source_row": "{method} samples no row of the source's beside its edit",
}


@dataclass(frozen=True)
class Objection:
    """Why a choice makes no sense, and which group's other choices may."""

    group: Literal["inversion", "direction"]
    reason: str


def objection(method: Method, inversion: Inversion, direction: Direction) -> Objection | None:
    """The first thing that speaks against running the three together."""
    reason = _about_inversion(method, inversion)
    if reason is not None:
        return Objection("inversion", reason)
    reason = _about_direction(method, direction)
    return None if reason is None else Objection("direction", reason)


def _about_inversion(method: Method, inversion: Inversion) -> str | None:
    name, inverter = _name(method), _name(inversion)
    if "trajectory" in method.uses and "trajectory" not in inversion.provides:
        return f"{name} samples from an inverted trajectory, and {inverter} makes none"
    for given, why in _UNUSED.items():
        if given in inversion.provides - method.uses:
            return f"{why.format(method=name)}, so {inverter} would have no effect"
    if isinstance(inversion, FittedToGuidance) and inversion.fitted_guidance != method.guidance:
        return (
            f"{inverter} is fitted to guidance {inversion.fitted_guidance:g}, but {name} samples "
            f"with method.guidance={method.guidance:g}; leave inversion.guidance out, and it "
            "follows the method's"
        )
    return None


def _about_direction(method: Method, direction: Direction) -> str | None:
    name, way = _name(method), _name(direction)
    if "target" not in method.uses and not isinstance(direction, WordSwap):
        return f"{name} samples under the source prompt here, so {way} would have no effect"
    if "target_words" in method.uses and not direction.keeps_target_words:
        return (
            f"{name} looks for the target prompt's words in the target condition, and {way} makes "
            "that from the source prompt's"
        )
    return None


def _name(choice: object) -> str:
    """Its class's; what the class declares for all settings can be asked of the class itself."""
    return choice.__name__ if isinstance(choice, type) else type(choice).__name__
