"""Check that a run's judges, captioner and sentences suit the pictures that it edits.

The package's own models know the shapes world only: their numbers are meaningless for
photographs, and published models say little about shapes. Each choice declares its world
(`world`, `world_of(**settings)` or a direction's `worlds`); a choice that suits both declares
none. Nothing is loaded for this check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from zerocon.core.checks import ConfigError

if TYPE_CHECKING:
    from zerocon.core.cases import World

SWITCH = "mixed_worlds"
DOCS = "docs/metrics.md"
WORDS: Mapping[str, str] = {"shapes": "the shapes world", "photographs": "photographs"}

# The setting that decides a part's world -> what to set for each world.
_ADVICE: Mapping[str, Mapping[World, str]] = {
    "path": {"photographs": "path=…", "shapes": "path=null"},
    "net": {"photographs": "net=squeeze", "shapes": "net=shapes"},
    "bank": {"photographs": "bank=photo", "shapes": "bank=shapes"},
    "captioner": {
        "photographs": "captioner=… (a BLIP model; direction=prompt_pair needs none)",
        "shapes": "captioner=null",
    },
}
# Metrics that use another metric's judge unless their own is set (conf/metrics).
FOLLOWS: Mapping[str, str] = {
    "metrics.change": "metrics.clip",
    "metrics.dino": "metrics.structure",
    "metrics.truth": "metrics.lpips",
}


@dataclass(frozen=True)
class Part:
    """A choice that suits one world only; `setting` decides which."""

    group: str
    setting: str
    world: World

    def advice(self, wanted: World) -> str:
        return f"{self.group}.{_ADVICE[self.setting][wanted]}"


Maker = Callable[..., Any]  # a class with its settings, not yet called


@dataclass(frozen=True)
class Choices:
    """The choices of a config that can belong to a world."""

    backbone: Maker | None = None
    dataset: Maker | None = None
    direction: object = None
    metrics: Mapping[str, Maker] = field(default_factory=dict[str, Maker])  # by "metrics.NAME"


def check_worlds(choices: Choices, *, mixed: object = False) -> str:
    """Describe mixed worlds in one sentence for tables ("" if none); refuse unless `mixed`."""
    if not isinstance(mixed, bool):
        raise ConfigError(f"{SWITCH} is {mixed!r}; it must be true or false")
    pictures = _pictures(choices)
    strange = [p for p in _parts(choices) if {*pictures.values()} - {p.world}]
    if not strange and len({*pictures.values()}) < 2:
        return ""
    if not mixed:
        raise ConfigError(_refusal(strange, pictures))
    return _about_strangers(strange, pictures) if strange else _about_pictures(pictures)


def _refusal(strange: Sequence[Part], pictures: Mapping[str, World]) -> str:
    allow = f"{SWITCH}=true to mix them anyway"
    if len({*pictures.values()}) > 1:
        return (
            f"{_about_pictures(pictures)}; choose another backbone or dataset (for your own "
            f"pictures, dataset.world says what they show), or {allow}"
        )
    wanted = next(iter(pictures.values()))
    groups = {part.group for part in strange}
    asked = [part for part in strange if FOLLOWS.get(part.group) not in groups]
    settings = ", ".join(dict.fromkeys(part.advice(wanted) for part in asked))
    return f"{_about_strangers(strange, pictures)}; set {settings} ({DOCS}), or {allow}"


def _pictures(choices: Choices) -> dict[str, World]:
    """The worlds of the backbone and the dataset, where known."""
    makers = {"backbone": choices.backbone, "dataset": choices.dataset}
    found: dict[str, World] = {}
    for group, maker in makers.items():
        world = None if maker is None else _world_of(maker)
        if world is not None:
            found[group] = world
    return found


def _parts(choices: Choices) -> Iterator[Part]:
    worlds: Mapping[str, World] = getattr(choices.direction, "worlds", {})
    for setting, world in worlds.items():
        yield Part("direction", setting, world)
    for path, maker in choices.metrics.items():
        world = _world_of(maker)
        if world is not None:
            yield Part(path, "net" if "net" in cast("Any", maker).keywords else "path", world)


def _world_of(maker: Maker) -> World | None:
    """The world of a class with its settings bound, before it is called."""
    cls, settings = cast("Any", maker).func, cast("Any", maker).keywords
    given: World | None = settings.get("world")
    if given is not None:
        return given
    ask: Callable[..., World | None] | None = getattr(cls, "world_of", None)
    return getattr(cls, "world", None) if ask is None else ask(**settings)


def _about_pictures(pictures: Mapping[str, World]) -> str:
    worlds = {*pictures.values()}
    if len(pictures) > 1 and len(worlds) == 1:
        (world,) = worlds
        return f"the {' and the '.join(pictures)} are of {WORDS[world]}"
    return " and ".join(f"the {group} is of {WORDS[w]}" for group, w in pictures.items())


def _about_strangers(parts: Sequence[Part], pictures: Mapping[str, World]) -> str:
    said: list[str] = []
    for world in dict.fromkeys(part.world for part in parts):
        names = dict.fromkeys(p.group for p in parts if p.world == world)
        said.append(f"{', '.join(names)} {'know' if len(names) > 1 else 'knows'} {WORDS[world]}")
    return f"{' and '.join(said)} only, but {_about_pictures(pictures)}"
