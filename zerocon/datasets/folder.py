"""A folder of pictures and one edit for all of them, as "cat → dog on 250 photographs"."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from zerocon.core.cases import Case, DatasetError
from zerocon.datasets.base import Choice, FileDataset, Row, listed
from zerocon.datasets.images import SUFFIXES


class Folder(FileDataset):
    """Every picture below `root`, by name; `source` and `target` are the prompts of them all.

    A case's id is the picture's path without its suffix; with it, where two pictures differ
    in nothing else. Hidden files and folders are left out.
    """

    name = "folder"

    def __init__(
        self,
        root: str | Path,
        side: int,
        source: str,
        target: str,
        **chosen: Unpack[Choice],
    ) -> None:
        for name, prompt in (("source", source), ("target", target)):
            if not prompt.strip():
                raise DatasetError(f"{name} is {prompt!r}; it must be a prompt")
        root = Path(root)
        self.source, self.target = source.strip(), target.strip()
        names = _pictures(root)
        digest = _digest(root, names)
        said = [digest, self.source, self.target]
        super().__init__(root, side, root, listed(_entries(names)), said, **chosen)

    def source_path(self, case_id: str) -> str | None:
        return str(self.entry(case_id)["image"])

    def _case(self, case_id: str, entry: Row) -> Case:
        notes: list[str] = []
        image = self._picture(entry["image"], notes)
        return Case(case_id, image, self.source, self.target, notes=tuple(notes))


def _pictures(root: Path) -> list[str]:
    if not root.is_dir():
        raise DatasetError(f"{root} is no folder; it should be one with pictures")
    found = (p.relative_to(root) for p in root.rglob("*") if p.suffix.lower() in SUFFIXES)
    names = sorted(p.as_posix() for p in found if not any(x.startswith(".") for x in p.parts))
    if not names:
        raise DatasetError(f"{root} holds no picture ({', '.join(SUFFIXES)})")
    return names


def _entries(names: Sequence[str]) -> list[tuple[object, object]]:
    stems = [Path(name).with_suffix("").as_posix() for name in names]
    times = Counter(stems)
    return [
        (stem if times[stem] == 1 else name, {"image": name})
        for stem, name in zip(stems, names, strict=True)
    ]


def _digest(root: Path, names: Sequence[str]) -> str:
    """Of names and sizes: reading every picture before the first edit would take long."""
    sizes = [[name, (root / name).lstat().st_size] for name in names]
    content = json.dumps(sizes).encode("utf-8", "backslashreplace")
    return hashlib.sha256(content).hexdigest()
