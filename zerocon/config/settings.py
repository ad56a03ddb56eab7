"""Configuration stops here: from Hydra's config to plain objects, checked before anything runs.

Only this file, `run.py` and `cli.py` see a DictConfig. Every group names its class with
`_target_`; its fields are checked against that class's signature and annotations, and the
class checks its own ranges, so a wrong setting ends the run at once and is named.
"""

from __future__ import annotations

import collections.abc
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from zerocon.backbones.base import BackboneSettings
from zerocon.config.compatibility import objection
from zerocon.config.worlds import SWITCH, Choices, check_worlds
from zerocon.core.cases import Dataset, DatasetError
from zerocon.core.checks import ConfigError, in_range
from zerocon.core.naming import NOT_IN_NAME, digest_of_settings
from zerocon.directions.base import Direction
from zerocon.inversions.base import Inversion
from zerocon.ledger.cache import DEFAULT, GIB
from zerocon.ledger.claims import AUTO, Shard
from zerocon.losses.base import NoLosses
from zerocon.methods.base import Method
from zerocon.metrics.base import Metric
from zerocon.trackers.base import Tracker

CONF = Path(__file__).parent.parent.parent / "conf"

Executor = Literal["local", "processes", "ray"]
Worlds = Literal["run", "edit", "any"]
OnCodeChange = Literal["warn", "refuse", "rerun", "keep"]


@dataclass(frozen=True)
class RunnerSettings:
    root: str = "outputs"
    batch_size: int | Literal["auto"] = 10
    deterministic: bool = False
    retry_failed: bool = True
    executor: Executor = "local"
    workers: int = 2
    ray_address: str | None = None
    shard: str = "1/1"
    cache: float | bool = DEFAULT
    on_code_change: OnCodeChange = "warn"
    gallery_cases: int = 40
    per_type: bool = False

    def __post_init__(self) -> None:
        if self.batch_size != "auto":
            in_range("runner.batch_size", self.batch_size, 1)
        elif self.deterministic:
            raise ConfigError(
                "runner.deterministic=true gives every batch one shape, so it needs a number as "
                "runner.batch_size, not auto"
            )
        in_range("runner.workers", self.workers, 1)
        in_range("runner.cache", self.cache, 0)
        in_range("runner.gallery_cases", self.gallery_cases, 1)
        Shard.read(self.shard)

    @property
    def chunk_size(self) -> int:
        """How many cases are handed out at once."""
        return AUTO if self.batch_size == "auto" else self.batch_size

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
    dataset: Callable[..., Dataset]  # waits for `side`, which the backbone knows
    direction: Direction
    inversion: Inversion
    method: Method
    metrics: Callable[[], list[Metric]]
    runner: RunnerSettings
    tracker: Callable[[], Tracker]
    config: dict[str, Any]  # everything

    directory: Path
    mixture: str = ""  # in words: which of the choices are not of one world


def runner_settings(config: dict[str, Any]) -> RunnerSettings:
    return _typed(RunnerSettings, config["runner"], "runner")()


def directory_of(config: dict[str, Any]) -> Path:
    """Where the run of this config is: named by its content, known without loading anything."""
    name = str(config["name"])
    if not name.strip() or "/" in name:
        raise ConfigError(f"name is {config['name']!r}; it must be a plain word or two")
    return Path(config["runner"]["root"]) / f"{name}-{digest_of_settings(config)}"


def settings_from(cfg: DictConfig) -> RunSettings:
    """Check every field; ConfigError for the first that is wrong."""
    return settings_of(plain(cfg))


def settings_of(config: dict[str, Any], worlds: Worlds = "run") -> RunSettings:
    """`worlds`: what must be of one world: all of a `run`, what makes an `edit`, or `any`."""
    dataset = dataset_of(config)
    mixture = "" if worlds == "any" else worlds_mixed_in(config, scored=worlds == "run")
    runner, directory = runner_settings(config), directory_of(config)
    inversion: Inversion = build(config, "inversion")()
    method, direction = method_of(config), cast("Direction", build(config, "direction")())
    _check_pairing(config, method, inversion, direction)
    in_range("seed", config["seed"], 0)
    return RunSettings(
        name=str(config["name"]),
        seed=config["seed"],
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
    """What is mixed if the config allows it, in words. `scored`: are there pictures to judge?"""
    whole = dict(config)
    choices = Choices(
        backbone=build(whole, "backbone") if "backbone" in whole else None,
        dataset=build(whole, "dataset", later=("side",)) if scored else None,
        direction=build(whole, "direction")() if "direction" in whole else None,
        metrics=metric_makers(whole) if scored else {},
    )
    return check_worlds(choices, mixed=whole.get(SWITCH, False))


def _stored(directory: Path, overrides: Sequence[str]) -> DictConfig:
    """What the run in `directory` was made with; `overrides` may say where and how fast only."""
    file = directory / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"{directory} is no run's directory: it has no config.yaml")
    for override in overrides:
        key, given, _ = override.partition("=")
        if not given or not any(key == n or key.startswith(f"{n}.") for n in NOT_IN_NAME):
            raise ConfigError(
                f"{override!r} can't be changed: a run is looked at as it was made. What may be "
                f"given is where and how fast: {', '.join(NOT_IN_NAME)}"
            )
    try:
        changes = OmegaConf.from_dotlist(list(overrides))
        return cast("DictConfig", OmegaConf.merge(OmegaConf.load(file), changes))
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"{file} can't be read: {error}") from error


def stored_config(directory: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The same, plain; it may be of pictures that were only scored."""
    return plain(_stored(directory, overrides))


def stored_settings(directory: Path, overrides: Sequence[str] = ()) -> RunSettings:
    """The settings of the run in `directory`, wherever that is now."""
    cfg = _stored(directory, overrides)
    if "method" not in cfg:
        raise ConfigError(f"{directory} holds scores of pictures that were made elsewhere")
    # What is stored was made; the tables say so if worlds were mixed.
    return replace(settings_of(plain(cfg), worlds="any"), directory=directory)


def build(config: dict[str, Any], group: str, later: Sequence[str] = ()) -> Callable[..., Any]:
    """The group's class with its checked settings; call it to make the object."""
    fields = dict(config[group])
    target = fields.pop("_target_", None)
    if target is None:
        raise ConfigError(f"conf/{group} names no class: it needs a `_target_`")
    return _typed(_class_of(target, group), fields, group, later)


def _class_of(target: str, group: str) -> Callable[..., Any]:
    try:
        return cast("Callable[..., Any]", get_object(target))
    except Exception as error:
        raise ConfigError(f"{group}._target_={target} can't be imported: {error}") from error


def dataset_of(config: dict[str, Any]) -> Callable[..., Dataset]:
    """Call it with `side` to open the dataset. Its settings are checked here, no file is read."""
    make = build(config, "dataset", later=("side",))
    check = getattr(getattr(make, "func", None), "check_settings", None)
    if check is not None:
        try:
            check(cast("partial[Dataset]", make).keywords)
        except DatasetError as error:
            raise ConfigError(f"dataset.{error}") from error
    return make


def method_of(config: dict[str, Any]) -> Method:
    """The method, with its losses if it is one that descends losses."""
    make = build(config, "method", later=("loss",))
    takes_losses = "loss" in inspect.signature(make).parameters
    losses = losses_of(config)
    if takes_losses == isinstance(losses, NoLosses):
        raise ConfigError(_about_losses(make, takes_losses=takes_losses))
    return make(loss=losses) if takes_losses else make()


def losses_of(config: dict[str, Any]) -> Any:
    """The losses, with each of their terms."""
    nodes = {name: value for name, value in config["loss"].items() if isinstance(value, dict)}
    terms = {name: build({f"loss.{name}": node}, f"loss.{name}")() for name, node in nodes.items()}
    return _class_of(config["loss"]["_target_"], "loss")(**terms)


def _about_losses(make: Any, *, takes_losses: bool) -> str:
    name = make.func.__name__
    if takes_losses:
        return f"{name} descends losses, but loss=none leaves it none; try loss=zerocon"
    return f"{name} uses no losses, so `loss` would have no effect; leave it out, or loss=none"


def metrics_of(config: dict[str, Any]) -> Callable[[], list[Metric]]:
    """Call it to load the judges."""
    makers = metric_makers(config)
    return lambda: [make() for make in makers.values()]


def metric_makers(config: dict[str, Any]) -> dict[str, Callable[..., Metric]]:
    """{"metrics.NAME": its class with its settings}; a call loads the judge."""
    group = dict(config["metrics"])
    shared = {key: group.pop(key) for key in ("protocol",) if key in group}
    nodes = {f"metrics.{name}": node for name, node in group.items() if node is not None}
    return {path: build({path: {**shared, **node}}, path) for path, node in nodes.items()}


def _typed(
    cls: Callable[..., Any], fields: dict[str, Any], group: str, later: Sequence[str] = ()
) -> Callable[..., Any]:
    """`cls` with `fields` bound, each checked against its annotation."""
    parameters, hints = _declared_settings(cls)
    for name, value in fields.items():
        if name not in parameters:
            raise ConfigError(_unknown(f"{group}.{name}", [f"{group}.{p}" for p in parameters]))
        if value == "???":
            raise ConfigError(f"{group}.{name} is needed: give it as {group}.{name}=…")
        if name in hints and not _fits(value, hints[name]):
            wanted = _type_name(hints[name])
            raise ConfigError(f"{group}.{name} is {value!r}; it must be {wanted}")
    fields = {k: _as_declared(v, hints.get(k)) for k, v in fields.items()}
    required = [
        name
        for name, p in parameters.items()
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD
        if name not in fields and name not in later
    ]
    if required:
        raise ConfigError(f"{group}.{required[0]} is needed: give it as {group}.{required[0]}=…")
    return partial(cls, **fields)


def _declared_settings(
    cls: Callable[..., Any],
) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    """Its arguments and their annotations; `**more: Unpack[Some]` stands for all of Some's keys."""
    parameters = dict(inspect.signature(cls).parameters)
    # A dataclass may inherit fields, whose annotations belong to other modules.
    own_init = inspect.isclass(cls) and not is_dataclass(cls)
    hints = typing.get_type_hints(cls.__init__ if own_init else cls)
    for name, parameter in list(parameters.items()):
        if typing.get_origin(hints.get(name)) is typing.Unpack:
            del parameters[name]
            more = typing.get_type_hints(typing.get_args(hints.pop(name))[0])
            hints |= more
            for key in more:
                parameters[key] = inspect.Parameter(key, parameter.KEYWORD_ONLY, default=None)
    return parameters, hints


def _fits(value: Any, hint: Any) -> bool:
    """Is the value from YAML what the annotation asks for? What we can't judge, fits."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if isinstance(value, bool):
        return hint in (bool, Any)
    kinds: dict[Any, tuple[type, ...]] = {
        float: (int, float),
        int: (int,),
        str: (str,),
        bool: (bool,),
        Path: (str,),
        type(None): (type(None),),
        list: (list,),
        tuple: (list,),
        collections.abc.Sequence: (list,),
        dict: (dict,),
    }
    allowed = kinds.get(origin or hint)
    return allowed is None or isinstance(value, allowed)


def _as_declared(value: Any, hint: Any) -> Any:
    """YAML has lists and text; a signature may want tuples and paths."""
    if isinstance(value, str) and (hint is Path or hint == Path | None):
        return Path(value)
    if isinstance(value, list) and "tuple" in str(hint):
        return tuple(cast("list[Any]", value))
    return value


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of: " + ", ".join(str(a) for a in typing.get_args(hint))
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    options = typing.get_args(hint) or (hint,)
    return " or ".join(
        "null" if o is type(None) else names.get(o, str(o).replace("typing.", "")) for o in options
    )


def _check_pairing(config: dict[str, Any], *chosen: Any) -> None:
    """Refuse what makes no sense together; `chosen`: the method, inversion and direction."""
    trouble = objection(*chosen)
    if trouble is not None:
        works = [name for name, why in partners(config, trouble.group, *chosen).items() if not why]
        advice = f"; what works: {trouble.group}={', '.join(works)}" if works else ""
        raise ConfigError(f"{trouble.reason}{advice}")


def partners(
    config: dict[str, Any], group: str, method: Method, inversion: Any, direction: Any
) -> dict[str, str]:
    """Every choice of a group that could stand in this config, and what speaks against it."""
    reasons: dict[str, str] = {}
    for file in sorted((CONF / group).glob("*.yaml")):
        choice = declared(config, group, file)
        trio = (choice, direction) if group == "inversion" else (inversion, choice)
        trouble = objection(method, *trio)
        # What the other group's choice is wrong about is no objection to this one.
        theirs = trouble is not None and trouble.group == group
        reasons[file.stem] = trouble.reason if trouble and theirs else ""
    return reasons


def declared(config: dict[str, Any], group: str, file: Path) -> Any:
    """A choice of a group at its own settings; of one that needs more settings, its class."""
    whole = OmegaConf.merge({"method": config["method"]}, {group: OmegaConf.load(file)})
    filled = plain(cast("DictConfig", whole))
    if "???" in filled[group].values():
        return get_object(filled[group]["_target_"])
    return build(filled, group)()


def plain(cfg: DictConfig) -> dict[str, Any]:
    try:
        container = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the config can't be resolved: {error}") from error
    resolved = cast("dict[str, Any]", container)
    resolved.pop("usual", None)  # the settings that were filled from it are what counts
    loss = resolved.get("loss", {})  # so are the terms that its short names filled
    if loss:
        kept = ("_target_", *(name for name, value in loss.items() if isinstance(value, dict)))
        resolved["loss"] = {name: loss[name] for name in kept}
    return resolved


def compose_settings(overrides: Sequence[str], worlds: Worlds = "run") -> RunSettings:
    """The settings of one run from its overrides, as on the command line."""
    return settings_of(plain(compose_config(overrides)), worlds)


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Compose `conf/` with overrides; ConfigError in plain words when an override is wrong."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return compose("config", overrides=list(overrides))
        except HydraException as error:
            raise ConfigError(_explain(error, overrides)) from error
        except OmegaConfBaseException as error:
            raise ConfigError(str(error)) from error


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's message, with the nearest setting that exists instead of advice to append one."""
    first = str(error).splitlines()[0]
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if f"'{key}'" in first:
            return _unknown(key, _known_keys(overrides))
    return str(error)


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """Every setting there is, given the groups that the overrides choose."""
    groups = [o for o in overrides if (CONF / o.partition("=")[0]).is_dir()]
    try:
        cfg = compose("config", overrides=groups)
    except HydraException:
        cfg = compose("config")
    names = [p.name for p in CONF.iterdir() if p.is_dir()]
    return [*names, *_flat(cast("dict[str, Any]", OmegaConf.to_container(cfg)))]


def _flat(node: dict[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, value in node.items():
        path = f"{prefix}{name}"
        keys.append(path)
        if isinstance(value, dict):
            keys.extend(_flat(cast("dict[str, Any]", value), f"{path}."))
    return keys


def _unknown(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    group = key.rpartition(".")[0]
    siblings = [k for k in known if k.rpartition(".")[0] == group and not k.endswith("_target_")]
    said = f"there is no setting {key!r}"
    if near:
        said += f"; did you mean {' or '.join(near)}?"
    if siblings:
        said += f" {group or 'At the top level'} has: {', '.join(sorted(siblings))}."
    return said
