"""A report's runs: finding them on disk, their labels, and their settings."""

from __future__ import annotations

import glob
import os
import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import yaml

from zerocon.core.checks import ConfigError
from zerocon.core.naming import SHORT_NAMES, is_in_name
from zerocon.core.plain_yaml import loaded
from zerocon.core.text import printable
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import IMAGES
from zerocon.ledger.run_directory import ORIGIN as FILE
from zerocon.ledger.run_directory import RunDirectory
from zerocon.reports.summary import Column

NO_VALUE = "–"  # for a field that the run's config lacks
_PNG_HEAD = 24  # bytes of a PNG up to its width and height


@dataclass(frozen=True)
class Run:
    """A run's directory. Its config is read on first use."""

    directory: Path
    label: str  # the directory's name, with parents if needed to be unique
    origin: Origin

    @cached_property
    def config(self) -> Mapping[str, Any]:
        file = self.directory / "config.yaml"
        try:
            config = loaded(file.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"{file} can't be read as a run's config: {error}") from error
        if not isinstance(config, dict):
            raise ConfigError(f"{file} is not a run's config")
        return cast("dict[str, Any]", config)

    @cached_property
    def fields(self) -> dict[str, Any]:
        """Every setting by its dotted name; the group's name maps to its class."""
        return dict(_flat(self.config))

    def field(self, name: str) -> str:
        return shown(self.fields.get(self.stored_name(name), NO_VALUE))

    def stored_name(self, name: str) -> str:
        """The stored name of a setting that has a short form."""
        return name if name in self.fields else SHORT_NAMES.get(name, name)

    @cached_property
    def resolution(self) -> str:
        """Size of the measured pictures, as "512" or "768×512"; "" without pictures."""
        return _resolution(self.directory / IMAGES)

    @cached_property
    def legacy_jpeg(self) -> bool:
        """Whether edited pictures were recompressed before measuring.

        Only `zerocon score` does that; its runs have no backbone.
        """
        scored = self.origin.backbone.get("name") == "unknown"
        return scored and self.fields.get("scored.legacy_jpeg") is True


def _resolution(folder: Path) -> str:
    """Size of the first picture found; all pictures of a run have the same size."""
    try:
        with os.scandir(folder) as entries:
            pictures = (e for e in entries if e.name.endswith(".png"))
            file = next((e.path for e in pictures if e.is_file(follow_symlinks=False)), None)
        head = _head(file) if file else b""
    except OSError:
        return ""
    if len(head) < _PNG_HEAD or head[12:16] != b"IHDR":
        return ""
    width, height = struct.unpack(">II", head[16:])
    return str(width) if width == height else f"{width}×{height}"


def _head(file: str) -> bytes:
    with Path(file).open("rb") as opened:
        return opened.read(_PNG_HEAD)


def find_runs(patterns: Sequence[str | Path]) -> list[Run]:
    """Find the runs of each pattern: a run's directory, a folder, or a glob (outputs/**)."""
    named = [d for pattern in patterns for d in _directories(str(pattern))]
    directories = _once(named)
    labels = _labels(directories)
    return [Run(d, printable(labels[d]), RunDirectory(d).origin) for d in directories]


def _directories(pattern: str) -> list[Path]:
    """The run directories that a pattern matches, without reading the runs."""
    top = re.sub(r"/\*\*(/\*)?$", "", pattern)  # folders are searched recursively anyway
    matches = sorted(glob.glob(top))  # noqa: PTH207 - a Path's glob takes no absolute pattern
    named = [Path(top)] if Path(top).exists() else [Path(match) for match in matches]
    if not named:
        raise ConfigError(f"there is nothing at {pattern}")
    found = [run for path in named for run in _below(path)]
    if not found:
        raise ConfigError(f"{pattern} is not a run's directory and contains none (no {FILE} there)")
    return sorted(found, key=lambda path: natural(str(path)))


def _below(path: Path) -> Iterator[Path]:
    for folder, inner, files in os.walk(path):
        if FILE in files:
            inner.clear()
            yield Path(folder)


def _once(paths: Iterable[Path]) -> list[Path]:
    """Drop duplicates: several patterns may match a directory."""
    known: dict[Path, Path] = {}
    for path in paths:
        known.setdefault(path.resolve(), path)
    return list(known.values())


def _labels(directories: Sequence[Path]) -> dict[Path, str]:
    """The shortest unique end of each path."""
    labels: dict[Path, str] = {}
    parts = {path: path.resolve().parts for path in directories}
    for count in range(1, max(map(len, parts.values())) + 1):
        names = {p: "/".join(parts[p][-count:]) for p in directories if p not in labels}
        often = Counter(names.values())
        labels |= {path: name for path, name in names.items() if often[name] == 1}
    return labels


def columns_of(runs: Sequence[Run], only: Sequence[str] = ()) -> list[Column]:
    """The runs' metrics in order of first appearance, or those in `only`."""
    columns: dict[str, Column] = {}
    for run in runs:
        for column in run.origin.columns:
            known = columns.setdefault(str(column["name"]), column)
            if known["unit"] != column["unit"]:
                raise ConfigError(
                    f"{column['name']} is in {known['unit'] or 'no unit'} in one run and in "
                    f"{column['unit'] or 'no unit'} in {run.label}: they can't share a column"
                )
    unknown = [name for name in only if name not in columns]
    if unknown:
        raise ConfigError(f"no run measured {unknown[0]!r}; there is: {', '.join(columns)}")
    return [columns[name] for name in only] if only else list(columns.values())


def check_field(runs: Sequence[Run], name: str) -> None:
    """Raise if no run has the field."""
    if not has_field(runs, name):
        known = {field for run in runs for field in run.fields}
        raise ConfigError(f"no run's config has a field {name!r}; there is: {', '.join(known)}")


def has_field(runs: Sequence[Run], name: str) -> bool:
    """Whether some run has the field."""
    known = {field for run in runs for field in run.fields}
    return bool({run.stored_name(name) for run in runs} & known)


def varying(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The settings that affect results and differ between the runs, with their values."""
    if len(runs) < 2:
        return {}
    names = dict.fromkeys(name for run in runs for name in run.fields if _counts(name))
    values = {name: sorted({run.field(name) for run in runs}, key=natural) for name in names}
    return {name: several for name, several in values.items() if len(several) > 1}


def _counts(field: str) -> bool:
    return field != "name" and is_in_name(field)


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in node.items():
        if name == "_target_":
            continue
        path = f"{prefix}{printable(name)}"
        if not isinstance(value, dict):
            yield path, value
            continue
        group = cast("dict[str, Any]", value)
        if "_target_" in group:
            yield path, str(group["_target_"]).rpartition(".")[2]
        yield from _flat(group, f"{path}.")


def shown(value: object) -> str:
    """A setting's value as YAML, without control characters."""
    if value is None:
        return "null"
    return printable(str(value).lower() if isinstance(value, bool) else value)


def natural(text: str) -> list[tuple[int, float, str]]:
    """Sorts "10" after "9" and "-0.5" before "0.25"."""
    try:
        return [(0, float(text), "")]
    except ValueError:
        parts = re.findall(r"\d+|\D+", text)
        return [(1, int(p), "") if p.isdecimal() else (2, 0, p) for p in parts]


def short_names(settings: Sequence[str]) -> dict[str, str]:
    """The last part of each name if it is unique, else the whole name."""
    last = [name.rpartition(".")[2] for name in settings]
    return {
        name: short if last.count(short) == 1 else name
        for name, short in zip(settings, last, strict=True)
    }
