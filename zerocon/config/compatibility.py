"""Which method, inversion and direction make sense together, from what their classes declare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig, OmegaConf

from zerocon.config.bind import TARGET, build, method_of
from zerocon.config.compose import compose_config, plain, settled
from zerocon.config.places import CONF
from zerocon.core.checks import ConfigError
from zerocon.core.registry import find

if TYPE_CHECKING:
    from zerocon.directions.base import Direction
    from zerocon.inversions.base import Inversion, Provided
    from zerocon.methods.base import Method

# For each thing that an inversion can provide: why a method may not use it.
_UNUSED: dict[Provided, str] = {
    "trajectory": "{method} starts from the picture itself",
    "negative": "{method} uses no empty condition here (its guidance is 1, or it has a "
    "negative prompt of its own)",
    "source_row": "{method} samples no source branch beside its edit",
}


@dataclass(frozen=True)
class Objection:
    """Why a combination makes no sense, and the group in which to choose something else."""

    group: Literal["inversion", "direction"]
    reason: str


@dataclass(frozen=True)
class Model:
    """What matters of a backbone: whether it is a flow model, and told its guidance scale."""

    flow: bool = False
    told: bool = False


# The kinds of backbones that the tables tell apart, and what a cell says of a combination that
# does not go with all of them: for diffusion models alone, or not for those told their guidance.
KINDS: Mapping[str, Model] = {
    "diffusion": Model(),
    "flow": Model(flow=True),
    "told": Model(flow=True, told=True),
}
_CELLS: Mapping[tuple[str, ...], str] = {
    (): "–",
    ("diffusion",): "diffusion",
    ("diffusion", "flow"): "not told",
    tuple(KINDS): "yes",
}


def objection(
    method: Method, inversion: Inversion, direction: Direction, model: Model = KINDS["diffusion"]
) -> Objection | None:
    """The first reason not to combine these on such a model, if any."""
    reason = _about_inversion(method, inversion) or _about_model(inversion, model)
    if reason is not None:
        return Objection("inversion", reason)
    reason = _about_direction(method, direction)
    return None if reason is None else Objection("direction", reason)


def _about_inversion(method: Method, inversion: Inversion) -> str | None:
    from zerocon.inversions.base import FittedToGuidance, FittedToSteps

    name, inverter = _name(method), _name(inversion)
    if "trajectory" in method.uses and "trajectory" not in inversion.provides:
        return f"{name} samples from an inverted trajectory, and {inverter} makes none"
    for given, why in _UNUSED.items():
        if given in inversion.provides - method.uses:
            return f"{why.format(method=name)}, so {inverter} would have no effect"
    if getattr(method, "asks_at_levels_only", False) and _asks_between(inversion):
        return (
            f"{name} with method.source=late has a source for the sampler's levels only, and "
            f"{inverter} asks between them, too"
        )
    if isinstance(inversion, FittedToGuidance) and inversion.fitted_guidance != method.guidance:
        return (
            f"{inverter} is fitted to guidance {inversion.fitted_guidance:g}, but {name} samples "
            f"with method.guidance={method.guidance:g}; leave inversion.guidance out, and it "
            "follows the method's"
        )
    if isinstance(inversion, FittedToSteps) and inversion.fitted_steps not in (None, method.steps):
        return (
            f"inversion.times has {inversion.fitted_steps} times, but method.steps is "
            f"{method.steps}; they must be as many"
        )
    return None


def _asks_between(inversion: Inversion) -> bool:
    """Whether its way back evaluates the network between the levels of the path."""
    return getattr(inversion, "way_back", "euler") != "euler"


def _about_model(inversion: Inversion, model: Model) -> str | None:
    if model.flow and getattr(inversion, "diffusion_only", False):
        return (
            f"{_name(inversion)} adds noise at each step as diffusion models do, but this backbone "
            "is a flow model"
        )
    if model.told and "negative" in inversion.provides:
        return (
            "this backbone is told its guidance scale and runs no row with an empty condition "
            "(backbone.guidance=classifier_free does), so "
            f"{_name(inversion)} would have no effect"
        )
    return None


def _check_negative(method: Method, model: Model) -> None:
    setting = getattr(method, "own_negative", None)
    if model.told and setting is not None:
        raise ConfigError(
            f"{setting} would have no effect: this backbone is told its guidance scale and runs no "
            "row with a negative condition; leave it out, or set backbone.guidance=classifier_free"
        )


def _about_direction(method: Method, direction: Direction) -> str | None:
    from zerocon.directions import WordSwap

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
    """The name of its class; `choice` is an object, or the class itself."""
    return choice.__name__ if isinstance(choice, type) else type(choice).__name__


def check_pairing(
    config: Mapping[str, Any], method: Method, inversion: Inversion, direction: Direction
) -> None:
    """Refuse a combination that makes no sense, and name choices that would work."""
    model = model_of(config)
    _check_negative(method, model)
    trouble = objection(method, inversion, direction, model)
    if trouble is not None:
        choices = partners(config, trouble.group, method, inversion, direction)
        works = [name for name, why in choices.items() if not why]
        advice = f"; what works: {trouble.group}={', '.join(works)}" if works else ""
        raise ConfigError(f"{trouble.reason}{advice}")


def partners(
    config: Mapping[str, Any], group: str, method: Method, inversion: Any, direction: Any
) -> dict[str, str]:
    """Every choice of a group, with the reason against it ("" if none)."""
    choices, model = every_choice(config, group), model_of(config)
    if group == "inversion":
        return inversions_for(choices, method, direction, model)
    return _directions_for(choices, method, inversion, model)


def inversions_for(
    choices: Mapping[str, Any], method: Method, direction: Any, model: Model
) -> dict[str, str]:
    """The reason against each inversion ("" if none)."""
    found = {name: objection(method, choice, direction, model) for name, choice in choices.items()}
    return _reasons("inversion", found)


def _directions_for(
    choices: Mapping[str, Any], method: Method, inversion: Any, model: Model
) -> dict[str, str]:
    found = {name: objection(method, inversion, choice, model) for name, choice in choices.items()}
    return _reasons("direction", found)


def _reasons(group: str, found: Mapping[str, Objection | None]) -> dict[str, str]:
    """An objection to the other group's choice is no objection to this one."""
    return {
        name: trouble.reason if trouble is not None and trouble.group == group else ""
        for name, trouble in found.items()
    }


def model_of(config: Mapping[str, Any]) -> Model:
    """What the config's backbone declares."""
    backbone = build(config, "backbone")()
    flow, told = (bool(getattr(backbone, name, False)) for name in ("flow", "guidance_is_told"))
    return Model(flow, told)


def every_choice(config: Mapping[str, Any], group: str) -> dict[str, Any]:
    """Every choice of a group with its default settings, or its class if some are required."""
    known, files = _known(config), sorted((CONF / group).glob("*.yaml"))
    return {file.stem: _declared(known, group, file) for file in files}


def _known(config: Mapping[str, Any]) -> DictConfig:
    """The settings that a choice's own may follow: the method's, the usual ones, the speed's."""
    # Whatever these are, what a class declares does not follow from them.
    usual, speed = (_loaded(CONF / name) for name in ("usual/shapes.yaml", "speed/exact.yaml"))
    return OmegaConf.create({"method": config["method"], "usual": usual, "speed": speed})


def _declared(known: DictConfig, group: str, file: Path) -> Any:
    known[group] = _loaded(file)
    filled = settled({group: OmegaConf.to_container(known[group], resolve=True)})
    if "???" in filled[group].values():
        return find(group, filled[group][TARGET])
    return build(filled, group)()


@cache
def _loaded(file: Path) -> Any:
    """A file of the package's own settings."""
    return OmegaConf.load(file)


@dataclass(frozen=True)
class Fits:
    """A method at its default settings, and the reason against each choice combined with it."""

    method: str
    inversions: dict[str, dict[str, str]]  # by kind of backbone, then by inversion
    directions: dict[str, str]


def every_method() -> list[Fits]:
    return [fits(file.stem) for file in sorted((CONF / "method").glob("*.yaml"))]


def fits(name: str) -> Fits:
    from zerocon.directions import WordSwap

    config = plain(compose_config([f"method={name}"]))
    method, inversion = method_of(config), build(config, "inversion")()
    inversions = every_choice(config, "inversion")
    return Fits(
        name,
        {
            kind: inversions_for(inversions, method, WordSwap(), model)
            for kind, model in KINDS.items()
        },
        partners(config, "direction", method, inversion, WordSwap()),
    )


def pairs(rows: Sequence[Fits]) -> dict[str, dict[str, dict[str, str]]]:
    """For inversions and directions: method -> choice -> the kinds of backbones it goes with."""
    return {
        "inversions": {row.method: _cells(row) for row in rows},
        "directions": {
            row.method: {
                name: _CELLS[() if why else tuple(KINDS)] for name, why in row.directions.items()
            }
            for row in rows
        },
    }


def _cells(row: Fits) -> dict[str, str]:
    """By inversion: with which kinds of backbones it goes."""
    return {
        name: _CELLS[tuple(kind for kind, reasons in row.inversions.items() if not reasons[name])]
        for name in row.inversions["diffusion"]
    }


def refusals(rows: Sequence[Fits]) -> Iterator[str]:
    """Why the other pairs are refused, one line per reason."""
    for row in rows:
        by_reason: dict[str, list[str]] = {}
        groups = (
            *(("inversion", found) for found in row.inversions.values()),
            (
                "direction",
                row.directions,
            ),
        )
        for group, reasons in groups:
            for choice, why in reasons.items():
                choices = by_reason.setdefault(why, [])
                if why and f"{group}={choice}" not in choices:
                    choices.append(f"{group}={choice}")
        by_reason.pop("", None)
        for why, choices in by_reason.items():
            yield f"{row.method} with {', '.join(choices)}: {why}"
