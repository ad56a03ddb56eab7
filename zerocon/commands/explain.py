"""`python run.py --help`: all choices, and every setting with its value and meaning.

What a setting means is said in one place: the comment in its line of a file in `conf/`.
"""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

_LINE = re.compile(r"^( *)([A-Za-z_]\w*):(.*)$")
TARGET = "_target_"
WIDEST_NAME, WIDEST_VALUE = 34, 22  # columns of the list of settings
_BASE = re.compile(r"^  - ([\w/]+)(?:@_here_)?$", re.MULTILINE)  # in a defaults list
_COMMENT = re.compile(r"(?:^|\s)#\s*(.*)$")


class Meanings:
    """The comments in the folders' files: those of the setting's class and what they build on."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    def of(self, setting: str, target: str = "") -> str:
        """What `method.steps` means; empty if no file says so."""
        group, _, inner = setting.partition(".")
        if not inner:
            return self._first([folder / "config.yaml" for folder in self._folders], group)
        files = [f for folder in self._folders for f in sorted((folder / group).glob("*.yaml"))]
        # A choice that is no single class, such as `metrics`, may be any of its group's files.
        named = [f for f in files if f"\n{TARGET}: {target}\n" in _text(f)] if target else []
        return self._first([based for file in named or files for based in _with_bases(file)], inner)

    @staticmethod
    def _first(files: Sequence[Path], name: str) -> str:
        return next((said for file in files if (said := _comments(file).get(name))), "")


@cache
def _text(file: Path) -> str:
    return file.read_text("utf-8") if file.is_file() else ""


def _with_bases(file: Path) -> list[Path]:
    """The file, and those of its folder that its defaults list names."""
    bases = [file.parent / f"{name}.yaml" for name in _BASE.findall(_text(file))]
    return [file, *(more for base in bases if base.is_file() for more in _with_bases(base))]


@cache
def _comments(file: Path) -> dict[str, str]:
    """{dotted name: the comment in its line}"""
    return {name: said for name, said in _named(_text(file).splitlines()) if said}


def settings_in(folder: Path, group: str) -> list[str]:
    """`method.steps` and all others that a choice of the group has, by name."""
    files = sorted((folder / group).glob("*.yaml"))
    named = {name for file in files for name, _ in _named(_text(file).splitlines())}
    ours = sorted(name for name in named if not {TARGET, "defaults"} & {*name.split(".")})
    inner = {name.rpartition(".")[0] for name in ours}  # a node, not a setting
    return [f"{group}.{name}" for name in ours if name not in inner]


def _named(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    open_keys: list[tuple[int, str]] = []
    for line in lines:
        found = _LINE.match(line)
        if not found:
            continue
        depth = len(found[1])
        open_keys = [(d, key) for d, key in open_keys if d < depth] + [(depth, found[2])]
        comment = _COMMENT.search(found[3])
        yield ".".join(key for _, key in open_keys), comment[1].strip() if comment else ""


HELP = """\
usage: {program} [-m] [-v] [--plugin MODULE] [--config-dir DIR] [group=choice …] [setting=value …]

  -m, --multirun    one run per combination of values, such as method.steps=10,50
  -v, --verbose     one line for each case, and what each stage cost
  --plugin MODULE   import this module of yours, whose classes a config may then name (repeatable)
  --config-dir DIR  look for choices in this folder too, as DIR/method/mine.yaml
  --cfg job         print the config of the run as YAML, and end
  -sc install=bash  print a script that completes python run.py in the shell (also zsh, fish):
                    eval "$(python run.py -sc install=bash)"; for zerocon: zerocon completion bash
  --version         print the version, and end
  --hydra-help      Hydra's other options

The choices of each group:

{choices}

The settings of the current choices, with their values; those of another choice are shown by
{program} --help method=pnp:

{settings}"""


def help_text(overrides: Sequence[str], folders: Sequence[Path], program: str) -> str:
    """List all choices and settings. Hydra's own help takes some seconds to do so."""
    from zerocon.config.compose import compose_config, plain
    from zerocon.config.places import CONF

    places = [CONF, *folders]
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    meanings = Meanings([*folders, CONF])
    config = plain(compose_config(overrides))
    top = {key: value for key, value in config.items() if not isinstance(value, dict)}
    groups = {key: value for key, value in config.items() if isinstance(value, dict)}
    parts = [_settings(top, "", meanings, width)]
    parts += [_settings(node, f"{name}.", meanings, width) for name, node in groups.items()]
    return HELP.format(
        program=program,
        choices="\n".join(_choices(places, width)),
        settings="\n\n".join("\n".join(part) for part in parts),
    )


def _choices(folders: Sequence[Path], width: int) -> Iterator[str]:
    groups: dict[str, set[str]] = {}
    for file in (file for folder in folders for file in sorted(folder.glob("*/*.yaml"))):
        groups.setdefault(file.parent.name, set()).add(file.stem)
    for group, names in sorted(groups.items()):
        if group == "usual":  # chosen by the backbone
            continue
        sign = "+" if group == "experiment" else ""
        said = f"  {sign}{group}={', '.join(sorted(names))}"
        yield textwrap.fill(said, width, subsequent_indent="      ", break_on_hyphens=False)


def _settings(
    node: Mapping[str, Any], prefix: str, meanings: Meanings, width: int
) -> Iterator[str]:
    """One line a setting: name, value, meaning."""
    if prefix:
        yield f"{prefix[:-1]}: {str(node.get(TARGET, '')).rpartition('.')[2]}".removesuffix(": ")
    for name, value, target in _flat(node, prefix, ""):
        shown = _value(value)
        if len(shown) > WIDEST_VALUE:
            shown = f"{shown[: WIDEST_VALUE - 1]}…"
        line = f"  {name:<{WIDEST_NAME}} {shown:<{WIDEST_VALUE}} "
        indent = " " * (WIDEST_NAME + WIDEST_VALUE + 4)
        said = meanings.of(name, target)
        yield textwrap.fill(line + said, width, subsequent_indent=indent).rstrip()


def _flat(node: Mapping[str, Any], prefix: str, target: str) -> Iterator[tuple[str, Any, str]]:
    """Each setting's dotted name and value, and the class that it belongs to."""
    target = str(node.get(TARGET, target))
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(cast("dict[str, Any]", value), f"{prefix}{key}.", target)
        elif key != TARGET:
            yield f"{prefix}{key}", value, target


def _value(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
