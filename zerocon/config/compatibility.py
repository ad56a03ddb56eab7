"""Which method, inversion and direction make sense together, from what their classes declare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from omegaconf import OmegaConf

from zerocon.config.bind import TARGET, build, method_of
from zerocon.config.compose import compose_config, plain
from zerocon.config.places import CONF
from zerocon.core.checks import ConfigError
from zerocon.core.registry import find

if TYPE_CHECKING:
    from omegaconf import DictConfig

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


def objection(
    method: Method, inversion: Inversion, direction: Direction, *, flow: bool = False
) -> Objection | None:
    """The first reason not to combine these, if any; `flow`: on a flow model."""
    reason = _about_inversion(method, inversion) or _about_model(inversion, flow=flow)
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


def _about_model(inversion: Inversion, *, flow: bool) -> str | None:
    if flow and getattr(inversion, "diffusion_only", False):
        return (
            f"{_name(inversion)} adds noise at each step as diffusion models do, but this backbone "
            "is a flow model"
        )
    return None


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
    trouble = objection(method, inversion, direction, flow=is_flow(config))
    if trouble is not None:
        choices = partners(config, trouble.group, method, inversion, direction)
        works = [name for name, why in choices.items() if not why]
        advice = f"; what works: {trouble.group}={', '.join(works)}" if works else ""
        raise ConfigError(f"{trouble.reason}{advice}")


def partners(
    config: Mapping[str, Any], group: str, method: Method, inversion: Any, direction: Any
) -> dict[str, str]:
    """Every choice of a group, with the reason against it in this config ("" if none)."""
    reasons, flow = dict[str, str](), is_flow(config)
    for file in sorted((CONF / group).glob("*.yaml")):
        choice = declared(config, group, file)
        trio = (choice, direction) if group == "inversion" else (inversion, choice)
        trouble = objection(method, *trio, flow=flow)
        # An objection to the other group's choice is no objection to this one.
        theirs = trouble is not None and trouble.group == group
        reasons[file.stem] = trouble.reason if trouble and theirs else ""
    return reasons


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether the config's backbone is a flow model, as its class declares."""
    backbone: Any = build(config, "backbone")
    return bool(getattr(backbone.func, "flow", False))


def declared(config: Mapping[str, Any], group: str, file: Path) -> Any:
    """A choice of a group with its default settings, or its class if it has required settings."""
    # Whatever a backbone's usual settings are, what a class declares does not follow from them.
    usual = OmegaConf.load(CONF / "usual" / "shapes.yaml")
    known = {"method": config["method"], "usual": usual}
    whole = OmegaConf.merge(known, {group: OmegaConf.load(file)})
    filled = plain(cast("DictConfig", whole))
    if "???" in filled[group].values():
        return find(group, filled[group][TARGET])
    return build(filled, group)()


@dataclass(frozen=True)
class Fits:
    """A method at its default settings, and the reason against each choice combined with it."""

    method: str
    inversions: dict[str, str]
    directions: dict[str, str]


def every_method() -> list[Fits]:
    return [fits(file.stem) for file in sorted((CONF / "method").glob("*.yaml"))]


def fits(name: str) -> Fits:
    from zerocon.directions import WordSwap

    config = plain(compose_config([f"method={name}"]))
    method, inversion = method_of(config), build(config, "inversion")()
    return Fits(
        name,
        partners(config, "inversion", method, inversion, WordSwap()),
        partners(config, "direction", method, inversion, WordSwap()),
    )


def tables(rows: Sequence[Fits]) -> str:
    """Markdown tables of valid pairs: methods and inversions, methods and directions."""
    inversions = {row.method: row.inversions for row in rows}
    directions = {row.method: row.directions for row in rows}
    return "\n\n".join("\n".join(_table(pairs)) for pairs in (inversions, directions))


def _table(pairs: dict[str, dict[str, str]]) -> Iterator[str]:
    head = ["method", *next(iter(pairs.values()))]
    yield _row(head)
    yield _row(["---"] * len(head))
    for method, reasons in pairs.items():
        yield _row([method, *("–" if why else "yes" for why in reasons.values())])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def refusals(rows: Sequence[Fits]) -> Iterator[str]:
    """Why the other pairs are refused, one line per reason."""
    for row in rows:
        by_reason: dict[str, list[str]] = {}
        for group, reasons in (("inversion", row.inversions), ("direction", row.directions)):
            for choice, why in reasons.items():
                if why:
                    by_reason.setdefault(why, []).append(f"{group}={choice}")
        for why, choices in by_reason.items():
            yield f"{row.method} with {', '.join(choices)}: {why}"
