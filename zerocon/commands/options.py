"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

VERBOSE = "also say what is being done: one line for each case, and what each stage cost"


def add_plugins(command: Any) -> None:
    """Add `--plugin`, for commands that read a stored config."""
    command.add_argument(
        "--plugin", dest="plugins", action="append", default=[], metavar="MODULE",
        help="import this module of yours, whose classes a config may then name (repeatable)",
    )  # fmt: skip


def add_composing(command: Any) -> None:
    """Add `--plugin` and `--config-dir`, for commands that compose `conf/`."""
    add_plugins(command)
    command.add_argument(
        "--config-dir", dest="config_dirs", action="append", default=[], type=Path, metavar="DIR",
        help="look for choices in this folder too, as DIR/method/mine.yaml (repeatable)",
    )  # fmt: skip


def add_verbose(command: Any) -> None:
    """Add `-v`, which `zerocon.cli` acts on for every command."""
    command.add_argument("-v", "--verbose", action="store_true", help=VERBOSE)
