"""A `Memory` on disk: values computed before, kept in one folder.

- An entry is a file named by a digest of everything that its value depends on.
- Files are written atomically, so several runs can share the folder.
- A file holds a checksum of its name and content. A damaged entry, or one that was copied over
  another, is computed again, with a warning.
- The folder has a size limit; the least recently used entries are removed first.
- If the folder can't be written, values are computed again. Results never depend on the cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerocon.core.memory import NO_MEMORY, Entry, Memory, cache_folder, compiled_folder, key_of
from zerocon.ledger.atomic import PARTIAL, sweep, write_atomic

if TYPE_CHECKING:
    from torch import Tensor

_ABANDONED = 3600.0  # seconds after which a half-written file counts as abandoned
_SCAN_EVERY = 20  # measure the folder whenever 1/20 of its limit has been written

log = logging.getLogger(__name__)


@dataclass
class Counts:
    """Cache hits and misses of one kind of entry, counted in cases."""

    found: int = 0
    computed: int = 0
    damaged: int = 0


class Cache:
    """The entries below `cache_folder()`, one folder per kind. `most`: the size limit in bytes."""

    def __init__(self, most: float) -> None:
        self.folder, self.most = cache_folder(), most
        self._counts: dict[str, Counts] = {}
        self._unmeasured = most  # bytes written since the folder was last measured
        self._writable = True

    def counts(self, kind: str) -> Counts:
        return self._counts.setdefault(kind, Counts())

    def kept(self, kind: str, content: Any, compute: Callable[[], Entry], count: int = 1) -> Entry:
        key = key_of(kind, content)
        entry = self.read(kind, key, count)
        if entry is None:
            entry = compute()
            self.write(kind, key, entry)
        return entry

    def read(self, kind: str, key: str, count: int = 1) -> Entry | None:
        """The entry, or None if there is none or it is damaged."""
        file = self._file(kind, key)
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            self.counts(kind).computed += count
            return None
        except OSError as error:
            return self._damaged(kind, file, error.strerror or "it can't be read", count)
        try:
            entry = _unpacked(data, key)
        except Exception as error:  # noqa: BLE001 - a parser may raise anything on a damaged file
            return self._damaged(kind, file, (str(error).splitlines() or [repr(error)])[0], count)
        self.counts(kind).found += count
        with suppress(OSError):
            os.utime(file)  # marks it as used now
        return entry

    def write(self, kind: str, key: str, entry: Entry) -> None:
        if not self._writable:
            return
        data, file = _packed(entry, key), self._file(kind, key)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, data)
        except OSError as error:
            self._writable = False
            log.warning("nothing is added to the cache %s: %s", file.parent, error.strerror)
            return
        self._unmeasured += len(data)
        if self._unmeasured * _SCAN_EVERY >= self.most:
            self._unmeasured = 0
            prune(self.most)

    def _file(self, kind: str, key: str) -> Path:
        return self.folder / kind / f"{key}.safetensors"

    def _damaged(self, kind: str, file: Path, reason: str, count: int) -> None:
        self.counts(kind).damaged += count
        self.counts(kind).computed += count
        log.warning("the cache's %s is damaged (%s); it is computed again", file.name, reason)


def memory_of(most: float) -> Memory:
    """The cache with this size limit in bytes; 0 turns it off."""
    return Cache(most) if most else NO_MEMORY


def _packed(entry: Entry, key: str) -> bytes:
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in entry.tensors.items()}
    values = json.dumps(dict(entry.values), sort_keys=True)
    return save(tensors, {"values": values, "sha256": _checksum(key, tensors, values)})


def _unpacked(data: bytes, key: str) -> Entry:
    """The entry in a file; ValueError or a parser's error if it was not written for this key."""
    from safetensors.torch import load

    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])["__metadata__"]
    tensors = load(data)
    if _checksum(key, tensors, header["values"]) != header["sha256"]:
        raise ValueError("its checksum does not fit its name and content")
    return Entry(tensors, json.loads(header["values"]))


def _checksum(key: str, tensors: Mapping[str, Tensor], values: str) -> str:
    import torch

    digest = hashlib.sha256(f"{key}\n{values}".encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Folder:
    """The size of the entries of one kind."""

    name: str
    files: int
    bytes: int


def folders() -> list[Folder]:
    kinds: dict[str, list[int]] = {}
    for _, size, path in _files():
        kind = path if path == compiled_folder() else path.parent
        kinds.setdefault(kind.name, []).append(size)
    return [Folder(name, len(sizes), sum(sizes)) for name, sizes in sorted(kinds.items())]


def prune(most: float) -> tuple[int, int]:
    """Remove the least recently used entries until at most `most` bytes remain.

    Return how many files and bytes were removed.
    """
    sweep(cache_folder(), _ABANDONED)
    files = sorted(_files())
    excess, removed, freed = sum(size for _, size, _ in files) - most, 0, 0
    for _, size, file in files:
        if freed >= excess:
            break
        with suppress(FileNotFoundError, PermissionError):  # another run removed it first
            shutil.rmtree(file, ignore_errors=True) if file.is_dir() else file.unlink()
            removed, freed = removed + 1, freed + size
    return removed, freed


def _files() -> Sequence[tuple[float, int, Path]]:
    """(last used, bytes, path) of every entry of every kind; compiled networks are one entry."""
    found: list[tuple[float, int, Path]] = []
    compiled = compiled_folder()
    with suppress(FileNotFoundError):  # none, or another run is writing there
        sizes = [file.stat().st_size for file in compiled.rglob("*") if file.is_file()]
        found.append((compiled.stat().st_mtime, sum(sizes), compiled))
    for file in cache_folder().glob("*/*"):
        with suppress(FileNotFoundError):
            status = file.stat()
            if file.is_file() and file.parent != compiled and file.suffix != PARTIAL:
                found.append((status.st_mtime, status.st_size, file))
    return found
