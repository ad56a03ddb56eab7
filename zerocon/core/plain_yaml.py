"""Plain data from untrusted YAML."""

from __future__ import annotations

from typing import Any

import yaml

_QUICK: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEP = 1000  # levels that libyaml, which recurses in C, handles safely
_LONGEST = 4_000_000  # characters


def loaded(text: str) -> Any:
    """Parse the text; YAMLError if that fails.

    libyaml is ten times as fast as the loader in Python, but deep nesting overflows its stack, so
    it is used only for text that can't be nested deeply.
    """
    if len(text) > _LONGEST:
        raise yaml.YAMLError(f"it has {len(text)} characters, more than settings ever have")
    try:
        return yaml.load(text, _QUICK if _depth_at_most(text) < _DEEP else yaml.SafeLoader)  # noqa: S506
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error


def _depth_at_most(text: str) -> int:
    """An upper bound of the nesting, from brackets and lines' indentation."""
    prefixes = (len(line) - len(line.lstrip(" -?\t")) for line in text.splitlines())
    return text.count("[") + text.count("{") + max(prefixes, default=0)
