"""What was computed before, in one folder: files named by the content of all that decides them.

- A file appears whole (written beside, then renamed), so runs that share the folder never meet.
- It holds a checksum of its content. One that is damaged is computed again, and that is said.
- The folder is bounded: what was not used for longest goes first.
- A folder that can't be written costs time, never a result.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerocon.core.limits import DEFAULT, GIB
from zerocon.ledger.atomic import PARTIAL, sweep, write_atomic

if TYPE_CHECKING:
    from torch import Tensor

_ABANDONED = 3600.0  # seconds after which a half-written file has no writer any more
_SCAN_EVERY = 20  # the folder is measured each time a twentieth of its bound was written

log = logging.getLogger(__name__)


def base() -> Path:
    """`$ZEROCON_CACHE`, or `~/.cache/zerocon`."""
    chosen = os.environ.get("ZEROCON_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "zerocon"


def key_of(content: Any) -> str:
    """A name for everything that decides a value; `content` is plain JSON."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Entry:
    """One value: its tensors, and what else is to be known, as plain JSON."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict["str", "Tensor"])
    said: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class Counts:
    """How often the cache could help in this session."""

    found: int = 0
    computed: int = 0
    damaged: int = 0


class Cache:
    """One folder of entries below `base()`. `most` is the bound of all folders, in bytes."""

    def __init__(self, kind: str, most: float) -> None:
        self.folder, self.most, self.counts = base() / kind, most, Counts()
        self._unmeasured = most  # bytes written since the folder was measured
        self._writable = True

    def read(self, key: str) -> Entry | None:
        """The entry, or None where there is none that is whole."""
        file = self._file(key)
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            self.counts.computed += 1
            return None
        except OSError as error:
            return self._lost(file, error.strerror or "it can't be read")
        try:
            entry = _unpacked(data)
        except Exception as error:  # noqa: BLE001 - whatever a damaged file makes a parser say
            return self._lost(file, str(error).splitlines()[0])
        self.counts.found += 1
        with suppress(OSError):
            os.utime(file)  # used now: it will not be the next to go
        return entry

    def write(self, key: str, entry: Entry) -> None:
        if not self._writable:
            return
        data = _packed(entry)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self._file(key), data)
        except OSError as error:
            self._writable = False
            log.warning("nothing is added to the cache %s: %s", self.folder, error.strerror)
            return
        self._unmeasured += len(data)
        if self._unmeasured * _SCAN_EVERY >= self.most:
            self._unmeasured = 0
            prune(self.most)

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _lost(self, file: Path, reason: str) -> None:
        self.counts.damaged += 1
        self.counts.computed += 1
        log.warning("the cache's %s is damaged (%s); it is computed again", file.name, reason)


class _Allowed:
    """How large the folder may grow by what this process adds, in bytes."""

    most = DEFAULT * GIB


def allow(most: float) -> None:
    """The bound of what `kept` adds from now on; with 0 it neither reads nor writes."""
    _Allowed.most = most


def kept(kind: str, content: Any, compute: Callable[[], Entry]) -> Entry:
    """What `content`, plain JSON, decides: found among the entries of its kind, or computed."""
    if not _Allowed.most:
        return compute()
    entries, key = _entries(base() / kind, _Allowed.most), key_of(content)
    found = entries.read(key)
    if found is None:
        found = compute()
        entries.write(key, found)
    return found


@cache
def _entries(folder: Path, most: float) -> Cache:
    return Cache(folder.name, most)


def _packed(entry: Entry) -> bytes:
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in entry.tensors.items()}
    said = json.dumps(dict(entry.said), sort_keys=True)
    return save(tensors, {"said": said, "sha256": _checksum(tensors, said)})


def _unpacked(data: bytes) -> Entry:
    """ValueError, or what the parser says, when it is not what was written."""
    from safetensors.torch import load

    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])["__metadata__"]
    tensors = load(data)
    if _checksum(tensors, header["said"]) != header["sha256"]:
        raise ValueError("its checksum is another")
    return Entry(tensors, json.loads(header["said"]))


def _checksum(tensors: Mapping[str, Tensor], said: str) -> str:
    import torch

    digest = hashlib.sha256(said.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Folder:
    """What one kind of entry takes."""

    name: str
    files: int
    bytes: int


def folders() -> list[Folder]:
    kinds: dict[str, list[int]] = {}
    for _, size, file in _files():
        kinds.setdefault(file.parent.name, []).append(size)
    return [Folder(name, len(sizes), sum(sizes)) for name, sizes in sorted(kinds.items())]


def prune(most: float) -> tuple[int, int]:
    """Remove what was not used for longest until all is at most `most` bytes: (files, bytes)."""
    sweep(base(), _ABANDONED)
    files = sorted(_files())
    excess, removed, freed = sum(size for _, size, _ in files) - most, 0, 0
    for _, size, file in files:
        if freed >= excess:
            break
        with suppress(FileNotFoundError, PermissionError):  # another run was faster
            file.unlink()
            removed, freed = removed + 1, freed + size
    return removed, freed


def _files() -> Sequence[tuple[float, int, Path]]:
    """(last used, bytes, path) of every entry of every kind."""
    found: list[tuple[float, int, Path]] = []
    for file in base().glob("*/*"):
        with suppress(FileNotFoundError):
            status = file.stat()
            if file.is_file() and file.suffix != PARTIAL:
                found.append((status.st_mtime, status.st_size, file))
    return found
