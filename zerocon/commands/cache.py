"""`zerocon cache`: show the size of cached results, and shrink the cache."""

from __future__ import annotations

import argparse
import re
from typing import Any

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def add(commands: Any) -> None:
    cache = commands.add_parser("cache", help="show or shrink the cache of earlier runs")
    cache.add_argument(
        "--prune", metavar="SIZE", help="remove the least recently used files, down to e.g. 5GB"
    )
    cache.set_defaults(handler=_cache)


def _cache(options: argparse.Namespace) -> None:
    from zerocon.core.memory import cache_folder
    from zerocon.ledger.cache import folders, prune

    if options.prune is not None:
        files, freed = prune(_bytes(options.prune))
        print(f"removed {files} file{'s' * (files != 1)}, {_size(freed)}")
        return
    found = folders()
    print(cache_folder())
    for folder in found:
        print(f"  {folder.name:24} {folder.files:7} files  {_size(folder.bytes):>10}")
    print(f"  {'total':24} {sum(f.files for f in found):7} files  {_all(found):>10}")


def _all(found: Any) -> str:
    return _size(sum(folder.bytes for folder in found))


def _bytes(text: str) -> float:
    from zerocon.core.checks import ConfigError

    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?B)?", text.strip().upper())
    if parts is None:
        raise ConfigError(f"--prune {text!r} is not a size; it must be like 500MB, 5GB or 0")
    return float(parts[1]) * UNITS[parts[2] if parts[2] in UNITS else ""]


def _size(count: int) -> str:
    for unit in ("GB", "MB", "KB"):
        if count >= UNITS[unit]:
            return f"{count / UNITS[unit]:.1f} {unit}"
    return f"{count} B"
