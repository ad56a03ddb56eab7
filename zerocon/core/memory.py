"""What was computed before: the interface through which costly values are kept and found again.

Directions and inversions are given a `Memory` and need not know where it keeps things.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Entry:
    """One value: its tensors, and everything else as plain JSON."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict["str", "Tensor"])
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Memory(Protocol):
    def kept(self, kind: str, content: Any, compute: Callable[[], Entry], count: int = 1) -> Entry:
        """The entry of this kind that `content` determines: found, or computed and kept.

        `content` is plain JSON and holds everything that the value depends on. `count`: how many
        cases the entry is about.
        """
        ...


class NoMemory:
    """Computes every time."""

    def kept(self, kind: str, content: Any, compute: Callable[[], Entry], count: int = 1) -> Entry:
        return compute()


NO_MEMORY = NoMemory()


def cache_folder() -> Path:
    """`$ZEROCON_CACHE`, or `~/.cache/zerocon`."""
    chosen = os.environ.get("ZEROCON_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "zerocon"


def key_of(kind: str, content: Any) -> str:
    """The name of an entry: a digest of its kind and of everything that determines its value."""
    text = json.dumps([kind, content], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:40]
