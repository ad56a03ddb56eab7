"""Give runs that were named by older rules the names that commands look for now.

Until now a name depended on the place of each class's file and on whether a number was written
with a point. Renaming changes nothing else in a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerocon.core.checks import ConfigError
from zerocon.core.naming import content_of, digest, digest_of_settings
from zerocon.ledger.run_directory import RunDirectory
from zerocon.reports.runs import find_runs


@dataclass(frozen=True)
class Renamed:
    """The result for one run; `problem` says why it was not renamed."""

    before: Path
    after: Path
    problem: str = ""

    def words(self) -> str:
        if self.problem:
            return f"{self.before}  stays: {self.problem}"
        return f"{self.before}  is now {self.after.name}"


def migrate(root: str | Path) -> Iterator[Renamed]:
    """Rename the runs below `root` whose names differ from those their settings give now."""
    for found in find_runs([root]):
        run = RunDirectory(found.directory)
        try:
            name = name_of(run.config)
        except (ConfigError, KeyError, TypeError) as error:
            yield Renamed(run.path, run.path, f"its config can't be used ({error})")
            continue
        if name != run.name:
            yield _renamed(run, run.path.with_name(name))


def name_of(config: dict[str, Any]) -> str:
    """The name that a command with these settings gives its run."""
    if "scored" in config:  # pictures made elsewhere are told apart by their name, too
        return f"{config['name']}-{digest(content_of(config))}"
    return f"{config['name']}-{digest_of_settings(config)}"


def _renamed(run: RunDirectory, after: Path) -> Renamed:
    before = run.path
    if run.status().state == "running":
        return Renamed(before, after, "it is running")
    if after.exists():
        return Renamed(before, after, f"{after.name} is there already")
    before.rename(after)
    return Renamed(before, after)
