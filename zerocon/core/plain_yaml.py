"""Plain data from YAML that may come from anybody."""

from __future__ import annotations

from typing import Any

import yaml

_QUICK: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEP = 1000  # levels that libyaml, which recurses in C, surely manages
_LONGEST = 4_000_000  # characters


def loaded(text: str) -> Any:
    """What the text holds; YAMLError if it can't be read.

    libyaml is ten times as fast as the loader in Python, but deep nesting overflows its stack and
    ends the process. So it gets only what can't be nested deeply.
    """
    if len(text) > _LONGEST:
        raise yaml.YAMLError(f"it has {len(text)} characters, more than settings ever have")
    try:
        return yaml.load(text, _QUICK if _depth_at_most(text) < _DEEP else yaml.SafeLoader)  # noqa: S506
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error


def _depth_at_most(text: str) -> int:
    """An upper bound: brackets, and what stands before the first word of a line."""
    prefixes = (len(line) - len(line.lstrip(" -?\t")) for line in text.splitlines())
    return text.count("[") + text.count("{") + max(prefixes, default=0)
