"""One run, described by plain objects and checked before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import yaml

from zerocon.config.bind import (
    build,
    method_of,
    metric_makers,
    metrics_of,
    node_of,
    typed,
    unknown,
)
from zerocon.config.compatibility import check_pairing
from zerocon.config.compose import GROUPS, compose_config, plain, settled
from zerocon.config.earlier import brought_up
from zerocon.config.files import check_inert, read_mapping
from zerocon.config.worlds import SWITCH, Choices, check_worlds
from zerocon.core.checks import ConfigError, in_range, shown
from zerocon.core.limits import AUTO, DEFAULT, GIB
from zerocon.core.naming import DETERMINISTIC, NOT_IN_NAME, digest_of_settings, is_in_name
from zerocon.core.shards import Shard

if TYPE_CHECKING:
    from zerocon.backbones.base import BackboneSettings
    from zerocon.core.cases import Dataset
    from zerocon.directions.base import Direction
    from zerocon.inversions.base import Inversion
    from zerocon.methods.base import Method
    from zerocon.metrics.base import Metric
    from zerocon.trackers.base import Tracker

Executor = Literal["local", "processes", "ray"]
Worlds = Literal["run", "edit", "any"]
OnCodeChange = Literal["warn", "refuse", "rerun", "keep"]

LONGEST_NAME = 100  # of a run: file systems stop at 255 bytes, and the digest follows
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class RunnerSettings:
    root: str = "outputs"
    batch_size: int | Literal["auto"] = 10
    deterministic: bool = False
    retry_failed: bool = True
    executor: Executor = "local"
    workers: int | Literal["auto"] = "auto"
    threads: int | Literal["auto"] = "auto"
    ray_address: str | None = None
    shard: str = "1/1"
    cache: float | bool = DEFAULT
    on_code_change: OnCodeChange = "warn"
    gallery_cases: int = 40
    per_type: bool = False

    def __post_init__(self) -> None:
        if not self.root.strip() or "\0" in self.root:
            raise ConfigError(f"runner.root is {self.root!r}; it must be a folder")
        if self.batch_size != "auto":
            in_range("runner.batch_size", self.batch_size, 1)
        if self.workers != "auto":
            in_range("runner.workers", self.workers, 1)
        if self.threads != "auto":
            in_range("runner.threads", self.threads, 1)
        in_range("runner.cache", self.cache, 0)
        in_range("runner.gallery_cases", self.gallery_cases, 1)
        Shard.read(self.shard)

    @property
    def chunk_size(self) -> int:
        """How many cases are handed out at once."""
        return AUTO if self.batch_size == "auto" else self.batch_size

    @property
    def edited_together(self) -> int:
        """How many of them are edited in one batch, at most."""
        return 1 if self.deterministic else self.chunk_size

    @property
    def cache_bytes(self) -> float:
        gib = DEFAULT if self.cache is True else float(self.cache)
        return gib * GIB


@dataclass(frozen=True)
class RunSettings:
    """One run, described by plain objects; nothing heavy is loaded yet."""

    name: str
    seed: int
    backbone: BackboneSettings
    dataset: Callable[..., Dataset]  # still needs `pixels`, which the backbone determines
    direction: Direction
    inversion: Inversion
    method: Method
    metrics: Callable[[], list[Metric]]
    runner: RunnerSettings
    tracker: Callable[[], Tracker]
    config: dict[str, Any]  # all settings

    directory: Path
    mixture: str = ""  # describes the choices that belong to different worlds


def runner_settings(config: Mapping[str, Any]) -> RunnerSettings:
    return typed(RunnerSettings, node_of(config, "runner"), "runner")()


def directory_of(config: Mapping[str, Any]) -> Path:
    """The directory of this config's run, named by its content; nothing is loaded."""
    name = _name_of(config)
    return Path(runner_settings(config).root) / f"{name}-{digest_of_settings(config)}"


def _name_of(config: Mapping[str, Any]) -> str:
    given = config.get("name")
    name = str(given)
    if not isinstance(given, (str, int)) or isinstance(given, bool) or not _is_word(name):
        raise ConfigError(
            f"name is {shown(given)}; it must be a plain word or two, at most {LONGEST_NAME} "
            "characters, without a slash"
        )
    return name


def _is_word(name: str) -> bool:
    plain_text = name.isprintable() and not set(name) & {"/", "\\"}
    return bool(name.strip()) and plain_text and 0 < len(name.encode()) <= LONGEST_NAME


def settings_of(config: dict[str, Any], worlds: Worlds = "run") -> RunSettings:
    """The settings of a run, checked.

    `worlds` says what must belong to one world: everything in a `run`, only what an `edit`
    needs, or nothing (`any`).
    """
    check_top(config)
    dataset = build(config, "dataset", later=("pixels",))
    mixture = "" if worlds == "any" else worlds_mixed_in(config, scored=worlds == "run")
    runner, directory = runner_settings(config), directory_of(config)
    inversion: Inversion = build(config, "inversion")()
    method, direction = method_of(config), cast("Direction", build(config, "direction")())
    check_pairing(config, method, inversion, direction)
    return RunSettings(
        name=_name_of(config),
        seed=int(config["seed"]),
        backbone=build(config, "backbone")(),
        dataset=dataset,
        direction=direction,
        inversion=inversion,
        method=method,
        metrics=metrics_of(config),
        runner=runner,
        tracker=build(config, "tracker"),
        config=config,
        directory=directory,
        mixture=mixture,
    )


def worlds_mixed_in(config: Mapping[str, Any], *, scored: bool = True) -> str:
    """Describe mixed worlds, if the config allows them. `scored`: whether metrics are used."""
    choices = Choices(
        backbone=build(config, "backbone") if "backbone" in config else None,
        dataset=build(config, "dataset", later=("pixels",)) if scored else None,
        direction=build(config, "direction")() if "direction" in config else None,
        metrics=metric_makers(config) if scored else {},
    )
    return check_worlds(choices, mixed=config.get(SWITCH, False))


def check_top(config: Mapping[str, Any]) -> None:
    """Check the top level: only groups, `name` and `seed` are there, and the latter are valid."""
    known = (*GROUPS, "name", "seed", SWITCH)
    for key in config:
        if key not in known:
            raise ConfigError(unknown(str(key), known))
    _name_of(config)
    own = {key: config[key] for key in ("name", "seed") if key in config}
    if "seed" not in own or not _is_seed(own["seed"]):
        raise ConfigError(f"seed is {shown(own.get('seed'))}; it must be a whole number")
    in_range("seed", own["seed"], 0)
    if own["seed"] > LARGEST_SEED:
        raise ConfigError(f"seed is {own['seed']}; it must be at most {LARGEST_SEED}")


def _is_seed(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def stored_config(directory: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The config of the run in `directory`, which may have scored pictures made elsewhere.

    The file may come from a stranger: it is read as plain data, and the classes that it names
    must be known ones (see `zerocon.core.registry`). `overrides` can change only settings of
    where and how fast it runs.
    """
    file = directory / "config.yaml"
    if not file.exists():
        raise ConfigError(f"{directory} is no run's directory: it has no config.yaml")
    stored = read_mapping(file)
    check_inert(file, stored)
    for override in overrides:
        _change(stored, override)
    return brought_up(settled(stored))


def _change(stored: dict[str, Any], override: str) -> None:
    """Put one override into a stored config."""
    key, given, _ = override.partition("=")
    if not given or is_in_name(key):
        raise ConfigError(
            f"{override!r} can't be changed, since it would change the run's results. These "
            f"settings can be: {', '.join(NOT_IN_NAME)} (but not {DETERMINISTIC})"
        )
    *groups, field = key.split(".")
    node = stored
    for group in groups:
        node = node_of(node, group)
    node[field] = _value(override) if groups else _group(stored, override)


def _group(stored: Mapping[str, Any], override: str) -> Any:
    """Another choice of a whole group, with what numbers depend on as it was."""
    key = override.partition("=")[0]
    chosen = plain(compose_config([override])).get(key)
    if key == "runner" and isinstance(chosen, dict):
        chosen["deterministic"] = stored.get("runner", {}).get("deterministic", False)
    return chosen


def _value(override: str) -> Any:
    """The override's value parsed as YAML, or the text itself if it is no YAML value."""
    text = override.partition("=")[2]
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return text if isinstance(value, dict) else value


def stored_settings(directory: Path, overrides: Sequence[str] = ()) -> RunSettings:
    """The settings of the run in `directory`, wherever that is now."""
    config = stored_config(directory, overrides)
    if "method" not in config:
        raise ConfigError(f"{directory} holds scores of pictures that were made elsewhere")
    # The run exists already, so mixed worlds are no error here; tables mention them.
    return replace(settings_of(config, worlds="any"), directory=directory)


def compose_settings(
    overrides: Sequence[str], worlds: Worlds = "run", *, foreign: Sequence[str] = ()
) -> RunSettings:
    """The settings of one run, from the user's own overrides and those in a file (`foreign`)."""
    return settings_of(plain(compose_config(overrides, foreign)), worlds)
