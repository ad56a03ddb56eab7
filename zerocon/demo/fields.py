"""The settings of a method that the page offers, from its config and what its classes declare."""

from __future__ import annotations

import math
import shlex
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, Literal, cast

from omegaconf import DictConfig, OmegaConf

from zerocon.config.bind import TARGET, Declared
from zerocon.config.compatibility import partners
from zerocon.config.compose import check_foreign, compose_config, plain
from zerocon.config.places import CONF
from zerocon.config.settings import RunSettings
from zerocon.core.checks import Bounds, ConfigError, noting, shown
from zerocon.core.registry import find

Kind = Literal["whole", "number", "switch", "choice"]
Value = int | float | bool | str | None

# Hydra has one global state: whoever composes in a thread of the demo holds this.
COMPOSING = RLock()
FIRST = ("method.steps", "method.guidance")  # shown first, with the losses' weights
GIVEN = ("backbone", "direction", "runner", "mixed_worlds", "seed", "hydra", "method")
TYPED = ("method", "loss", "inversion", "direction", "seed")
OWN = ""  # of a choice: leave it as the method has it


@dataclass(frozen=True)
class Field:
    """One setting; `low` and `high` are the class's own bounds, infinite where it has none."""

    name: str  # as in an override
    kind: Kind
    default: Value
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    first: bool = False  # shown without opening more settings

    @property
    def bounds(self) -> str:
        """In words; empty without bounds."""
        if math.isinf(self.low):
            return "" if math.isinf(self.high) else f"at most {self.high:g}"
        return (
            f"at least {self.low:g}" if math.isinf(self.high) else f"{self.low:g} to {self.high:g}"
        )

    def override(self, value: Value) -> str | None:
        """The override for a value from the page; None for the default, or an emptied field."""
        if value is None or value in (self.default, OWN):
            return None
        if self.kind == "switch":
            return f"{self.name}={str(bool(value)).lower()}"
        if self.kind == "choice":
            return f"{self.name}={value}"
        number = float(value)
        return f"{self.name}={int(number) if number.is_integer() else f'{number:.12g}'}"


@dataclass(frozen=True)
class Given:
    """What the command line of the demo chose for every edit."""

    overrides: tuple[str, ...] = ()
    method: str = "zerocon"

    @classmethod
    def read(cls, overrides: Sequence[str]) -> Given:
        kept: list[str] = []
        method = "zerocon"
        for override in overrides:
            key, _, value = override.lstrip("+~").partition("=")
            if key == "method":
                method = value
            elif key.partition(".")[0] not in GIVEN or key.startswith("method."):
                raise ConfigError(
                    f"{override} is set on the page; the command takes method=NAME (the first "
                    "method shown), backbone, direction, seed, runner and mixed_worlds"
                )
            else:
                kept.append(override)
        return cls(tuple(kept), method)

    def of(self, method: str) -> list[str]:
        """The overrides of an edit; the settings of a direction only where the method has them."""
        chosen = [f"method={method}"]
        others = [o for o in self.overrides if not o.startswith("direction.")]
        if len(others) == len(self.overrides):
            return [*chosen, *others]
        with COMPOSING:
            known = cast("Mapping[str, Any]", compose_config([*chosen, *others])["direction"])
        mine = [o for o in self.overrides if o not in others and _key(o) in known]
        return [*chosen, *others, *mine]


def _key(override: str) -> str:
    return override.partition("=")[0].removeprefix("direction.")


def method_files(folders: Sequence[Path] = ()) -> dict[str, Path]:
    """Every choice of a method with its file, pix2pix-zeroCon first; the page gives no masks."""
    files = [file for folder in (CONF, *folders) for file in (folder / "method").glob("*.yaml")]
    named = {file.stem: file for file in sorted(files) if not _within_a_mask(file)}
    return dict(sorted(named.items(), key=lambda item: item[0] != "zerocon"))


def _within_a_mask(file: Path) -> bool:
    target = str(cast("DictConfig", OmegaConf.load(file)).get(TARGET))
    try:
        return bool(getattr(find("method", target), "uses_mask", False))
    except ConfigError:
        return False  # composing says what is wrong with it


def method_words(file: Path) -> str:
    """The first sentence of its file."""
    lines = file.read_text("utf-8").splitlines()
    said: list[str] = []
    for line in lines:
        if not line.startswith("#"):
            break
        said.append(line.lstrip("# "))
    return " ".join(said).partition(". ")[0].rstrip(".")


def fields_of(given: Given, method: str) -> list[Field]:
    """The method's settings that are a number, a switch or a choice, then its losses' weights."""
    with COMPOSING:
        raw = compose_config(given.of(method))
        config = plain(raw)
        with noting() as bounds:
            settings = _settings(given, method)
        inversions = _inversions(config, settings)
    found = [*_of_class(config["method"], "method", "method", bounds), *_of_losses(raw, bounds)]
    seed = Field("seed", "whole", int(config["seed"]), 0)
    found += [Field("inversion", "choice", OWN, choices=(OWN, *inversions)), seed]
    return sorted(found, key=lambda field: not field.first)


def _settings(given: Given, method: str) -> RunSettings:
    from zerocon.api import settings_of_edit

    return settings_of_edit("a picture", given.of(method))


def _inversions(config: Mapping[str, Any], settings: RunSettings) -> list[str]:
    """Those that go with the method."""
    found = partners(config, "inversion", settings.method, settings.inversion, settings.direction)
    return [name for name, why in found.items() if not why]


def _of_class(node: Mapping[str, Any], kind: str, path: str, bounds: Bounds) -> Iterator[Field]:
    hints = Declared.of(find(kind, str(node[TARGET]))).hints
    for name, value in node.items():
        if name != TARGET and name in hints:
            full = f"{path}.{name}"
            field = _field(full, hints[name], value, bounds.get(full))
            if field is not None:
                yield field


def _field(
    name: str, hint: Any, value: Any, bounds: tuple[float, float] | None, *, first: bool = False
) -> Field | None:
    """None for settings that are no single value, or may be left open: those can be typed."""
    low, high = bounds or (-math.inf, math.inf)
    first = first or name in FIRST
    if hint is bool:
        return Field(name, "switch", bool(value), first=first)
    if typing.get_origin(hint) is Literal:
        choices = tuple(str(choice) for choice in typing.get_args(hint))
        return Field(name, "choice", str(value), choices=choices, first=first)
    if hint is int and isinstance(value, int):
        return Field(name, "whole", value, low, high, first=first)
    if hint is float and isinstance(value, (int, float)):
        return Field(name, "number", value, low, high, first=first)
    return None


def _of_losses(raw: DictConfig, bounds: Bounds) -> Iterator[Field]:
    """The short names of a sum of losses, with the bounds of the settings that follow them."""
    loss = cast("dict[str, Any]", OmegaConf.to_container(raw["loss"], resolve=False))
    for name, value in loss.items():
        if name == TARGET or isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        follows = [
            f"loss.{term}.{inner}"
            for term, node in loss.items()
            if isinstance(node, dict)
            for inner, said in cast("dict[str, Any]", node).items()
            if said == f"${{loss.{name}}}"
        ]
        limits = next((bounds[other] for other in follows if other in bounds), None)
        hint = int if isinstance(value, int) else float
        field = _field(f"loss.{name}", hint, value, limits, first=True)
        if field is not None:
            yield field


def typed_overrides(text: str) -> list[str]:
    """What was typed as further settings: values of the edit only, no places of files."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"the further settings can't be read: {error}") from error
    for word in words:
        check_foreign(word)
        key, _, value = word.lstrip("+").partition("=")
        group, _, inner = key.partition(".")
        if group not in TYPED or (group == "direction" and (inner or value == "file")):
            raise ConfigError(
                f"{shown(word)} can't be set on the page, only {', '.join(TYPED[:3])} and "
                "direction=NAME; give others when you start it: zerocon demo backbone=…"
            )
    return words
