"""The reference of settings: one page a group of conf/, with every choice and every setting."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf

from website.ranges import ranges
from zerocon.commands.explain import TARGET, Meanings
from zerocon.config.bind import Declared, type_name
from zerocon.config.compose import GROUPS, compose_config
from zerocon.config.places import CONF
from zerocon.config.settings import RunnerSettings
from zerocon.core.registry import ROOMS, find, names

TITLES = {
    "backbone": "Backbones", "dataset": "Datasets", "direction": "Directions",
    "inversion": "Inversions", "loss": "Losses", "method": "Methods", "metrics": "Metrics",
    "runner": "Runner", "tracker": "Trackers",
}  # fmt: skip
ABOUT = {
    "backbone": "The model that edits.",
    "dataset": "Where the cases come from; [formats](../datasets.md).",
    "direction": "What makes the target condition; [how](../directions.md).",
    "inversion": "How a picture becomes latents; [which with which](../inversions.md).",
    "loss": "What `zerocon`, `pix2pix_zero` and `cds` descend; [how](../zerocon.md).",
    "method": "How the edit is sampled: [methods](../methods.md), [flow editors](../flow.md).",
    "metrics": "What is measured; [columns](../metrics.md).",
    "runner": "Where, and how fast, a run is done; [scaling](../scaling.md).",
    "tracker": "A copy of a run's data elsewhere; [trackers](../scaling.md#wb).",
}
HEAD = "| setting | values | default | meaning |\n| --- | --- | --- | --- |\n"
TOP = {
    "name": "text, a word or two",
    "seed": "a whole number, at least 0",
    "mixed_worlds": "true or false",
}
_ENV = re.compile(r"\$\{oc\.env:(\w+),(\w+)\}")
_REFERENCE = re.compile(r"\$\{([\w.]+)\}$")


@dataclass(frozen=True)
class Setting:
    """One row: dotted name, resolved and written default, public name of its class."""

    name: str
    value: object
    written: object
    target: str


def pages() -> dict[str, str]:
    """{path in docs/: the page}"""
    made = {f"reference/{group}.md": _group(group) for group in GROUPS}
    return {
        "reference/index.md": _index(),
        **made,
        "reference/experiment.md": _experiments(),
        "reference/usual.md": _as_written("usual", USUAL),
        "reference/speed.md": _as_written("speed", SPEED),
        "reference/launcher.md": _as_written("hydra/launcher", LAUNCHERS),
    }


def choices(group: str) -> list[Path]:
    return sorted((CONF / group).glob("*.yaml"))


def _index() -> str:
    rows = "".join(
        f"| [`{group}`]({group}.md) | {', '.join(f'`{file.stem}`' for file in choices(group))} |\n"
        for group in GROUPS
    )
    found = [Setting(name, value, value, "") for name, value in _top().items()]
    return (
        "# Settings\n\nA run is a dataset × an inversion × a direction × a method × metrics. Each "
        "group has choices (`method=pnp`), each choice has settings (`method.attention=0.8`). "
        "These pages are made from the files in `conf/` and from the classes; `python run.py "
        "--help method=pnp` prints the same.\n\n"
        f"| group | choices |\n| --- | --- |\n{rows}"
        f"| [`+experiment`](experiment.md) | {len(choices('experiment'))} published set-ups |\n"
        f"| [`speed`](speed.md) | {', '.join(f'`{file.stem}`' for file in choices('speed'))} |\n"
        "| [`usual`](usual.md) | what follows the backbone |\n"
        "| [`hydra/launcher`](launcher.md) | ways to start a sweep |\n\n"
        f"## At the top level\n\n{HEAD}{''.join(_row(one, None) for one in found)}"
    )


def _top() -> dict[str, Any]:
    config = cast("dict[str, Any]", OmegaConf.to_container(compose_config([]), resolve=True))
    return {k: v for k, v in config.items() if not isinstance(v, dict)}


def _group(group: str) -> str:
    parts = [f"# {TITLES[group]}\n\n{ABOUT[group]}\n"]
    for file in choices(group):
        parts.append(f"\n## `{group}={file.stem}`\n\n{_about(file)}\n")
        if found := settings_of(group, file.stem):
            parts.append(f"\n{HEAD}{''.join(_row(one, _class(one)) for one in found)}")
    return "".join(parts)


def _about(file: Path) -> str:
    """The comment at the head of a choice's file."""
    lines: list[str] = []
    for line in file.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


@cache
def settings_of(group: str, choice: str) -> list[Setting]:
    """The settings of a choice with their defaults."""
    config = compose_config([f"{group}={choice}"])
    node = _plain(config[group], resolve=False)
    resolved = _plain(config, resolve=True)[group]
    return list(_flat(node, resolved, f"{group}.", ""))


def _plain(node: Any, *, resolve: bool) -> dict[str, Any]:
    return cast("dict[str, Any]", OmegaConf.to_container(node, resolve=resolve))


def _flat(
    node: Mapping[str, Any], resolved: Mapping[str, Any], prefix: str, target: str
) -> Iterator[Setting]:
    target = str(node.get(TARGET, target))
    for key, value in node.items():
        if isinstance(value, dict):
            inner = cast("dict[str, Any]", value)
            yield from _flat(inner, resolved[key], f"{prefix}{key}.", target)
        elif key != TARGET:
            yield Setting(f"{prefix}{key}", resolved[key], value, target)


def _class(setting: Setting) -> Any:
    if setting.name.startswith("runner."):
        return RunnerSettings
    kind = next((kind for kind in ROOMS if setting.target in names(kind)), None)
    return find(kind, setting.target) if kind else None


def _row(setting: Setting, choice: Any) -> str:
    said = Meanings([CONF]).of(setting.name, setting.target)
    cells = [f"`{setting.name}`", values(setting, choice), _default(setting)]
    return f"| {' | '.join(_cell(c) for c in [*cells, said or _short_for(setting)])} |\n"


def values(setting: Setting, choice: Any) -> str:
    """The type of a setting, and its range or its options."""
    last = setting.name.rpartition(".")[2]
    if choice is None or setting.name in SHORT:
        return TOP.get(setting.name, _type_of_short(setting))
    declared = Declared.of(choice)
    hint = declared.hints.get(last, declared.rest)
    if hint is None:
        return _type_of_short(setting)
    accepted = ranges(choice).get(last, "")
    kind = type_name(hint).replace("one of: auto", "`auto`")
    if accepted.startswith("`") and " to " not in accepted:
        return accepted + (" or null" if "null" in kind else "")
    if kind.startswith("one of: "):
        return ", ".join(f"`{word}`" for word in kind.removeprefix("one of: ").split(", "))
    return f"{kind}, {accepted}" if accepted else kind


def _type_of_short(setting: Setting) -> str:
    """The group's own settings (short names of the losses, the protocol) go to a class's."""
    if setting.name == "metrics.protocol":
        return "`masked`, `published`"
    full = SHORT.get(setting.name, "")
    if not full:
        return ""
    group, part, _ = full.split(".")
    found = [s for c in ("zerocon", "zecon") for s in settings_of(group, c) if s.name == full]
    return values(found[0], _class(found[0])) if part else ""


SHORT = {
    "loss.xa_weight": "loss.xa.weight",
    "loss.cut_weight": "loss.cut.weight",
    "loss.zecon_weight": "loss.zecon.weight",
    "loss.n_patches": "loss.cut.n_patches",
}


def _short_for(setting: Setting) -> str:
    full = SHORT.get(setting.name)
    return f"short for `{full}`" if full else ""


def _default(setting: Setting) -> str:
    written = setting.written
    if written == "???":
        return "needed"
    if isinstance(written, str):
        written = _ENV.sub(r"\2", written)
        if reference := _REFERENCE.match(written):
            name = reference[1]
            if name.startswith("usual."):
                return f"{_shown(setting.value)}, by the [backbone](usual.md)"
            if name.startswith("speed."):
                return f"{_shown(setting.value)}, by the [speed](speed.md)"
            return f"as `{name}`"
    return _shown(written)


def _shown(value: object) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _experiments() -> str:
    head = (
        "# Published set-ups\n\nSingle runs with the settings of a paper or of its authors' code: "
        "`python run.py +experiment=NAME`. Sets of runs that answer a question are "
        "[experiments](../../experiments/).\n"
    )
    parts = [head]
    for file in choices("experiment"):
        content = yaml.safe_load(file.read_text("utf-8"))
        body = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=96)
        parts.append(f"\n## `{file.stem}`\n\n{_about(file)}\n\n```yaml\n{body}```\n")
    return "".join(parts)


USUAL = (
    "# What follows the backbone\n\nDefaults that depend on the backbone. `backbone=NAME` "
    "chooses the file; a setting of the run, such as `method.guidance=5`, goes before it.\n"
)
SPEED = (
    "# Speed\n\n`python run.py speed=NAME`: the defaults of a few settings that save evaluations "
    "of the network. What is not `exact` is an approximation: [performance](../performance.md).\n"
)
LAUNCHERS = (
    "# Launchers\n\nHow the runs of a sweep are started: `python run.py -m "
    "hydra/launcher=NAME …`; [scaling](../scaling.md).\n"
)


def _as_written(folder: str, head: str) -> str:
    """A page of a folder's choices as their files have them."""
    parts = [head]
    for file in choices(folder):
        text = re.sub(r"\A(#.*\n)+", "", file.read_text("utf-8"))
        parts.append(f"\n## `{file.stem}`\n\n{_about(file)}\n\n```yaml\n{text}```\n")
    return "".join(parts)
