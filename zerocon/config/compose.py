"""Compose overrides, `conf/` and the user's own folders into one config, with Hydra.

Only this file, `bind.py`'s callers and `commands/run.py` see a DictConfig. All other code gets a
plain dictionary in canonical form: classes by their public names, whole numbers without a
decimal point.
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zerocon.config.bind import TARGET, unknown
from zerocon.config.places import CONF
from zerocon.core.checks import ConfigError, shown
from zerocon.core.naming import DTYPES, SHORT_NAMES, canonical
from zerocon.core.registry import ROOMS, public_name

MOST_RUNS = 10_000  # per command; more would take years, and Hydra lists them all first
SEARCHPATH = "hydra.searchpath"
GROUPS = (
    "backbone", "dataset", "direction", "inversion", "loss", "method", "metrics", "runner",
    "tracker",
)  # fmt: skip
HYDRAS_OWN = (
    "env", "help", "hydra_help", "hydra_logging", "job_logging", "launcher", "output", "sweeper",
)  # fmt: skip
LOSSES = "zerocon.losses.Losses"
SHORT = {name.removeprefix("loss.") for name in SHORT_NAMES}
_CHOICE = re.compile(r"[\w.+-]*")


def compose_config(overrides: Sequence[str], foreign: Sequence[str] = ()) -> DictConfig:
    """Compose a config; ConfigError in plain words when an override is wrong.

    `overrides` are the user's own. `foreign` ones come from a file that a stranger may have
    written; they are applied first, and can only set values and choose options by name.
    """
    for override in foreign:
        check_foreign(override)
    every = [*foreign, *overrides]
    with _hydra():
        try:
            return compose("config", overrides=[*_without_hydras_own(every), *every])
        except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
            raise ConfigError(_explain(error, every)) from error
        except RecursionError:
            raise ConfigError("the overrides are nested too deeply") from None


def _without_hydras_own(overrides: Sequence[str]) -> list[str]:
    """Overrides that leave out Hydra's own settings, a third of the time of composing.

    Composing drops those settings at its end; they only matter to overrides that set them.
    """
    keys = [override.lstrip("+~").partition("=")[0] for override in overrides]
    if any(key.startswith("hydra") and key != SEARCHPATH for key in keys):
        return []
    return [f"~hydra/{group}" for group in HYDRAS_OWN]


@contextmanager
def _hydra() -> Generator[None]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def check_foreign(override: object) -> None:
    """Refuse overrides that an experiment file may not contain: those that do more than set."""
    if not isinstance(override, str) or "=" not in override:
        raise ConfigError(f"{shown(override)} is no override; it must be like method.steps=50")
    key, _, value = override.partition("=")
    plain_key = key.removeprefix("+").removeprefix("+")
    if plain_key.startswith("hydra") or not re.fullmatch(r"[A-Za-z_][\w.]*", plain_key):
        raise ConfigError(
            f"{shown(override)} is not taken from a file: it does more than set a value. If you "
            "want it, give it on the command line"
        )
    if "${" in value:
        raise ConfigError(f"{shown(override)} is not taken from a file: write the value itself")
    if "." not in plain_key and plain_key != "name" and not _CHOICE.fullmatch(value):
        raise ConfigError(f"{shown(override)} is not taken from a file: {plain_key} takes a name")


def in_folders(folders: Sequence[Path]) -> list[str]:
    """The override that adds the user's own folders to Hydra's search path."""
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {folder} is no folder")
    places = ",".join(f"'file://{folder.resolve()}'" for folder in folders)
    return [f"{SEARCHPATH}=[{places}]"] if places else []


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The config resolved, as plain data in canonical form."""
    try:
        container = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"the config can't be resolved: {_one_line(error)}") from error
    resolved = cast("dict[str, Any]", container)
    _check_speed(cfg)
    for group in ("usual", "speed"):  # their values have been copied to the settings that use them
        resolved.pop(group, None)
    return _without_short_names(settled(resolved))


def _check_speed(cfg: DictConfig) -> None:
    """Refuse an approximation that none of the chosen options has."""
    asked = cfg.get("speed")
    if asked is None or asked == OmegaConf.load(CONF / "speed" / "exact.yaml"):
        return
    written = OmegaConf.to_container(cfg, resolve=False)
    others = {k: v for k, v in cast("dict[str, Any]", written).items() if k != "speed"}
    if "${speed.steps}" not in str(others):
        raise ConfigError(
            "speed has no effect: it chooses the steps of zeroCon and pix2pix-zero, where "
            "method.steps is not set itself; leave one of the two out"
        )


def _without_short_names(config: dict[str, Any]) -> dict[str, Any]:
    """The config without the loss's short names, which only fill settings of its terms."""
    loss = config.get("loss")
    if not isinstance(loss, dict) or cast("dict[str, Any]", loss).get(TARGET) != LOSSES:
        return config
    return {**config, "loss": {k: v for k, v in loss.items() if k not in SHORT}}


def settled(config: dict[str, Any]) -> dict[str, Any]:
    """The config with public class names, also where an older config names modules."""
    named = {group: _named(kind_of(group), node) for group, node in canonical(config).items()}
    return _with_long_dtype(named)


def _with_long_dtype(config: dict[str, Any]) -> dict[str, Any]:
    """The config with `float16` for `backbone.dtype=fp16`, so that both are one run."""
    backbone = config.get("backbone")
    if not isinstance(backbone, dict) or "dtype" not in backbone:
        return config
    node = cast("dict[str, Any]", backbone)
    return {**config, "backbone": {**node, "dtype": DTYPES.get(node["dtype"], node["dtype"])}}


def kind_of(group: str) -> str:
    """The registry's kind for the classes in a group."""
    return "metric" if group == "metrics" else group


def _named(kind: str, node: Any) -> Any:
    if isinstance(node, list):
        return [_named(kind, item) for item in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    named = {key: _named(kind, value) for key, value in cast("dict[str, Any]", node).items()}
    if isinstance(named.get(TARGET), str):
        named[TARGET] = _public(kind, named[TARGET])
    return named


def _public(kind: str, name: str) -> str:
    kinds = [k for k in ROOMS if k == kind or k.startswith(f"{kind} ")]
    return next((p for k in kinds if (p := public_name(k, name)) != name), name)


def sweep(overrides: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The overrides of each run of a sweep; just one run if nothing is swept."""
    choices = [_values(override) for override in parse(overrides)]
    return itertools.product(*choices)


def parse(overrides: Sequence[str]) -> list[Override]:
    """The overrides as Hydra parses them; ConfigError if they make too many runs."""
    with _hydra():
        loader = GlobalHydra.instance().config_loader()
        try:
            parsed = OverridesParser.create(loader).parse_overrides(list(overrides))
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise ConfigError(_explain(error, overrides)) from error
        except RecursionError:
            raise ConfigError("the overrides are nested too deeply") from None
    count = math.prod(_count(override) for override in parsed)
    if count > MOST_RUNS:
        raise ConfigError(f"the sweep has {count:,} runs; one command does at most {MOST_RUNS:,}")
    return parsed


def _count(override: Override) -> int:
    """How many values an override sweeps, without listing them."""
    if not override.is_sweep_override():
        return 1
    if override.is_interval_sweep():
        raise ConfigError(
            f"{override.input_line}: an interval has infinitely many values; list some, for "
            "example 0.1,0.2,0.5"
        )
    value = override.value()
    if isinstance(value, RangeSweep):
        start, stop, step = (float(x or 0) for x in (value.start, value.stop, value.step))
        if step == 0 or not all(map(math.isfinite, (start, stop, step))):
            raise ConfigError(
                f"{override.input_line} never ends: its step is 0 or leads away from its end"
            )
        return max(0, math.ceil((stop - start) / step))
    return len(list(_strings(override)))


def _values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    values = [f"{override.get_key_element()}={value}" for value in _strings(override)]
    if not values:
        raise ConfigError(f"{override.input_line} has no value at all")
    return values


def _strings(override: Override) -> Iterator[str]:
    try:
        with _hydra():  # for choices by pattern, such as method=glob(*)
            override.config_loader = GlobalHydra.instance().config_loader()
            yield from override.sweep_string_iterator()
    except HydraException as error:
        raise ConfigError(f"{override.input_line} can't be read: {_one_line(error)}") from error


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's message in a line or two, with suggestions."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_choice(str(error.missing_cfg_file), error.options or (), overrides)
    if isinstance(error, OverrideParseException):
        return f"{shown(error.override)} can't be read; an override is like method.steps=50"
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    if first.startswith("Config group override must be"):
        said = ", ".join(o for o in overrides if "." not in o.partition("=")[0])
        return f"one of {said}: a group takes the name of one of its choices"
    if "An item is already at" in first:
        return f"{first.partition('already at')[2].strip(' .')} is there already: leave out the +"
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if f"'{key}'" in first and "@" not in key:
            return unknown(key, _known_keys(overrides))
    return _one_line(error)


def _no_such_choice(missing: str, options: Sequence[str], overrides: Sequence[str]) -> str:
    group, _, name = missing.rpartition("/")
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if f"{key}/{value}" == missing:
            group, name = key, value
    said = f"there is no {group}={name}" if group else f"there is no config {name!r}"
    names = sorted(set(options))
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        rest = ", ".join(other for other in names if other not in near)
        said += f"; did you mean {' or '.join(near)}?"
        return f"{said} There is also: {rest}" if rest else said
    return f"{said}; there is: {', '.join(names)}" if names else said


def _one_line(error: Exception) -> str:
    text = str(error).partition("\nSee https")[0]
    return " ".join(text.split())[:300] or type(error).__name__


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """All known settings, given the groups that the overrides choose."""
    chosen = tuple(o for o in overrides if o.partition("=")[0] in (*GROUPS, SEARCHPATH))
    try:
        return _keys_with(chosen)
    except (HydraException, OmegaConfBaseException):
        return _keys_with(())


@lru_cache(maxsize=64)
def _keys_with(choices: tuple[str, ...]) -> list[str]:
    cfg = compose("config", overrides=[*_without_hydras_own(choices), *choices])
    return [*GROUPS, *_flat(cast("dict[str, Any]", OmegaConf.to_container(cfg)))]


def _flat(node: dict[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, value in node.items():
        path = f"{prefix}{name}"
        keys.append(path)
        if isinstance(value, dict):
            keys.extend(_flat(cast("dict[str, Any]", value), f"{path}."))
    return keys
