"""What directions computed before: small files, named by the content of all that decides them.

A file that is not what was written (another program's, half a file, a changed bit) counts as
missing. Writers never meet: each file appears whole. A cache that can't be written costs time,
never a result.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from zerocon.runs.atomic import write_atomic

VERSION = 1  # of what the files mean
MOST = 4000  # files; the ones unused for longest go first

T = TypeVar("T")


def folder() -> Path:
    """In `$ZEROCON_CACHE`, or `~/.cache/zerocon`."""
    cache = os.environ.get("ZEROCON_CACHE")
    base = Path(cache) if cache else Path.home() / ".cache" / "zerocon"
    return base / f"directions_v{VERSION}"


def name_of(what: str, content: Sequence[Any]) -> str:
    """A file's name without its suffix: what it holds, and a digest of what decides it."""
    text = json.dumps(content, ensure_ascii=False)
    return f"{what}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def cached_tensor(name: str, compute: Callable[[], Tensor]) -> Tensor:
    """The tensor of that name; computed, in float32, when it isn't there."""
    file = folder() / f"{name}.safetensors"
    found = _read_tensor(file)
    if found is None:
        found = compute().detach().float().cpu().contiguous()
        _write(file, save({"value": found}, {"sha256": _digest_of(found)}))
    return found


def cached_lines(name: str, compute: Callable[[], Sequence[str]]) -> list[str]:
    """The same for sentences."""
    file = folder() / f"{name}.json"
    found = _read_lines(file)
    if found is None:
        found = list(compute())
        text = json.dumps({"lines": found, "sha256": _digest_of(found)}, ensure_ascii=False)
        _write(file, text.encode())
    return found


def _digest_of(value: Tensor | list[str]) -> str:
    if isinstance(value, Tensor):
        data = value.flatten().view(torch.uint8).numpy().tobytes()
    else:
        data = json.dumps(value).encode()
    return hashlib.sha256(data).hexdigest()


def _read_tensor(file: Path) -> Tensor | None:
    try:
        with safe_open(file, "pt") as stored:
            value: Tensor = stored.get_tensor("value")
            said = (stored.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    return _used(file, value) if _digest_of(value) == said else None


def _read_lines(file: Path) -> list[str] | None:
    try:
        data = json.loads(file.read_bytes())
        value, said = [str(line) for line in data["lines"]], data["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _used(file, value) if _digest_of(value) == said else None


def _used(file: Path, value: T) -> T:
    with suppress(OSError):
        os.utime(file)
    return value


def _write(file: Path, data: bytes) -> None:
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, data)
        _forget(file.parent)


def _forget(directory: Path) -> None:
    """Remove what was not used for longest, down to `MOST` files."""
    entries = [entry for entry in os.scandir(directory) if entry.is_file()]
    if len(entries) <= MOST:
        return
    entries.sort(key=lambda entry: entry.stat().st_mtime)
    for entry in entries[: len(entries) - MOST]:
        with suppress(FileNotFoundError):  # another run was faster
            os.unlink(entry.path)  # noqa: PTH108 - scandir's paths are text
