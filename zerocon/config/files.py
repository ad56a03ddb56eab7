"""Read YAML files that may come from a stranger: as plain data, of limited size."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml

from zerocon.core.checks import ConfigError

MOST_BYTES = 200_000
MOST_NODES = 100_000  # aliases can turn a small file into a very large value


def read_mapping(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Nothing in it is executed, resolved or looked up."""
    try:
        if not file.is_file():  # reading a pipe would block
            raise ConfigError(f"{file} is no file")
        if file.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{file} has more than {MOST_BYTES:,} bytes; too large for settings")
        # Not the C parser: deep nesting overflows its stack and kills the process.
        content = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file} can't be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    except (RecursionError, ValueError) as error:  # for example a date like February 30
        raise ConfigError(f"{file} can't be read as YAML: {error}") from error
    if not isinstance(content, dict) or not content:
        said = "is empty" if content is None else "is not a mapping of settings"
        raise ConfigError(f"{file} {said}")
    _check_size(file, content)
    return cast("dict[str, Any]", content)


def check_inert(file: Path, content: object) -> None:
    """Raise ConfigError if any text is an interpolation such as ${oc.env:HOME}."""
    for text in _texts(content):
        if "${" in text:
            raise ConfigError(
                f"{file} holds the interpolation {text[:80]!r}; a run's settings are stored "
                "resolved, so this file was not written by a run and is not used"
            )


def _check_size(file: Path, content: object) -> None:
    left, count = [content], 0
    while left:
        node = left.pop()
        count += 1
        if count > MOST_NODES:
            raise ConfigError(f"{file} holds over {MOST_NODES:,} values, too many for settings")
        left += _inside(node)


def _inside(node: object) -> list[object]:
    if isinstance(node, dict):
        return [x for pair in cast("dict[object, object]", node).items() for x in pair]
    return list(cast("list[object]", node)) if isinstance(node, (list, tuple, set)) else []


def _texts(content: object) -> list[str]:
    texts, left = list[str](), [content]
    while left:
        node = left.pop()
        if isinstance(node, str):
            texts.append(node)
        left += _inside(node)
    return texts
