"""The reference of the Python interface and of the command: signatures, docstrings, help texts."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import os
import textwrap
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import zerocon
from zerocon import api
from zerocon.backbones.base import Backbone
from zerocon.cli import parser
from zerocon.commands.explain import HELP
from zerocon.config.settings import RunSettings
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.taps import Seen, Site, Taps
from zerocon.inversions.base import Trajectory

WIDTH = 88
OBJECTS = (
    api.Edit, RunSettings, Backbone, Trajectory, Conditions, Draws, Taps, Site, Seen,
    ConfigError,
)  # fmt: skip


def pages() -> dict[str, str]:
    """{path in docs/: the page}"""
    return {"reference/python.md": _python(), "reference/commands.md": _commands()}


def _python() -> str:
    parts = [f"# The Python interface\n\n{_doc(api)}\n"]
    parts += [_entry(f"zerocon.{name}", getattr(zerocon, name), "##") for name in zerocon.__all__]
    parts.append("\n## What they return\n")
    for one in OBJECTS:
        parts.append(_entry(f"{one.__module__}.{one.__qualname__}", one, "###"))
        parts += [_entry(name, member, "####") for name, member in _members(one)]
    return "".join(parts)


def _members(choice: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that the class defines itself."""
    for name, member in vars(choice).items():
        if not name.startswith("_") and (
            inspect.isfunction(member) or isinstance(member, (property, classmethod))
        ):
            found = member.__func__ if isinstance(member, classmethod) else member
            yield f"{choice.__name__}.{name}", found


def _entry(name: str, thing: Any, level: str) -> str:
    code = f"\n```python\n{signature(name.rpartition('.')[2], thing)}\n```\n"
    said = _doc(thing)
    return f"\n{level} `{name}`\n{code}" + (f"\n{said}\n" if said else "")


def signature(name: str, thing: Any) -> str:
    """As one writes it in Python: one line, or one line an argument."""
    if isinstance(thing, property):
        kept = inspect.signature(thing.fget).return_annotation if thing.fget else "Any"
        return f"{name}: {_type(kept)}"
    if inspect.isclass(thing):
        return f"class {name}{_fields(thing)}"
    found = inspect.signature(thing)
    arguments = [_argument(p) for p in found.parameters.values()]
    keyword_only = [p.kind is p.KEYWORD_ONLY for p in found.parameters.values()]
    has_star = any(p.kind is p.VAR_POSITIONAL for p in found.parameters.values())
    if True in keyword_only and not has_star:
        arguments.insert(keyword_only.index(True), "*")
    end = f" -> {_type(found.return_annotation)}"
    line = f"def {name}({', '.join(arguments)}){end}"
    if len(line) <= WIDTH:
        return line
    return f"def {name}(\n" + "".join(f"    {a},\n" for a in arguments) + f"){end}"


def _argument(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    kind = "" if parameter.annotation is parameter.empty else f": {_type(parameter.annotation)}"
    default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
    return f"{stars}{parameter.name}{kind}{default}"


def _type(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "Any")


def _fields(choice: Any) -> str:
    if dataclasses.is_dataclass(choice):
        shown = [f"    {f.name}: {_type(f.type)}" for f in dataclasses.fields(choice)]
        return ":\n" + "\n".join(line for line in shown if not line.strip().startswith("_"))
    own = [f"    {k}: {_type(v)}" for k, v in inspect.get_annotations(choice).items()]
    shown = [line for line in own if not line.strip().startswith("_")]
    return ":\n" + "\n".join(shown) if shown else ""


def _doc(thing: Any) -> str:
    own = thing.__doc__
    if not own or "Abstract base class for protocol" in own or own.startswith("Initialize self"):
        return ""
    if inspect.isclass(thing) and own.startswith(f"{thing.__name__}("):
        return ""  # a dataclass's own list of fields
    return inspect.cleandoc(own)


def _commands() -> str:
    head = (
        "# Commands\n\nWhat `zerocon COMMAND --help` prints. `python run.py` is `zerocon run` in a "
        f"checkout.\n\n## `zerocon run`\n\n```text\n{_help_of_run()}\n```\n"
    )
    parts = [head]
    with patch.dict(os.environ, {"COLUMNS": str(WIDTH), "NO_COLOR": "1"}):
        for name, command in subcommands(parser()).items():
            parts.append(f"\n## `{name}`\n\n```text\n{command.format_help().rstrip()}\n```\n")
            for inner, sub in subcommands(command).items():
                parts.append(f"\n### `{inner}`\n\n```text\n{sub.format_help().rstrip()}\n```\n")
    return "".join(parts)


def _help_of_run() -> str:
    usage = HELP.partition("\n\nThe choices")[0].format(program="zerocon run")
    return textwrap.dedent(usage)


def subcommands(top: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """{the whole command: its parser}, without second names."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in top._actions:  # noqa: SLF001 - argparse has no public list of them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for parser_of_one in action.choices.values():
                found.setdefault(str(parser_of_one.prog), parser_of_one)
    return found
