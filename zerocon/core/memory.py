"""The interface for caching values that are expensive to compute.

Directions and inversions get a `Memory`, independent of where it stores values.
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
    """A cached value: its tensors, and everything else as plain JSON."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict["str", "Tensor"])
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Memory(Protocol):
    def kept(self, kind: str, content: Any, compute: Callable[[], Entry], count: int = 1) -> Entry:
        """Return the entry of this kind for `content`: find it, or compute and store it.

        `content` is plain JSON with everything that the value depends on. `count`: the number of
        cases in the entry.
        """
        ...


class NoMemory:
    """Stores nothing: computes each time."""

    def kept(self, kind: str, content: Any, compute: Callable[[], Entry], count: int = 1) -> Entry:
        return compute()


NO_MEMORY = NoMemory()


def cache_folder() -> Path:
    """`$ZEROCON_CACHE`, or `~/.cache/zerocon`."""
    chosen = os.environ.get("ZEROCON_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "zerocon"


def compiled_folder() -> Path:
    """Where compiled networks lie, for the next run."""
    return cache_folder() / "compiled"


def key_of(kind: str, content: Any) -> str:
    """An entry's name: the digest of its kind and content."""
    text = json.dumps([kind, content], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:40]
