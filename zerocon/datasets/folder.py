"""A folder of pictures and one edit for all of them, such as cat → dog on 250 photographs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from zerocon.core.cases import Case, DatasetError, DatasetMissingError, World
from zerocon.core.size import Size
from zerocon.datasets.base import Choice, FileDataset, Row, listed
from zerocon.datasets.images import SUFFIXES


class Folder(FileDataset):
    """All pictures below `root`, by name, with common prompts `source` and `target`.

    A case's id is the picture's path without its suffix, or with it if the path would not be
    unique. Hidden files and folders are left out. `world`: what the pictures show.
    """

    name = "folder"

    def __init__(
        self,
        root: str | Path,
        pixels: Size,
        source: str,
        target: str,
        *,
        world: World = "photographs",
        **chosen: Unpack[Choice],
    ) -> None:
        self.check_settings({"source": source, "target": target, **chosen})
        root = Path(root)
        self.source, self.target, self.world = source.strip(), target.strip(), world
        entries, settings = _entries(_pictures(root)), [self.source, self.target]
        super().__init__(root, pixels, root, listed(entries), settings, **chosen)

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        super().check_settings(settings)
        for name in ("source", "target"):
            prompt = settings.get(name)
            if isinstance(prompt, str) and not prompt.strip():
                raise DatasetError(f"{name} is {prompt!r}; it must be a prompt")

    def source_path(self, case_id: str) -> str | None:
        return str(self.entry(case_id)["image"])

    def _files(self, entry: Row) -> Mapping[str, str | Path]:
        return {"picture": entry["image"]}

    def _case(self, case_id: str, entry: Row) -> Case:
        notes: list[str] = []
        image = self._picture(entry["image"], notes)
        return Case(case_id, image, self.source, self.target, notes=tuple(notes))


def _pictures(root: Path) -> list[str]:
    if not root.is_dir():
        raise DatasetMissingError(f"{root} is not a folder of pictures")
    found = (p.relative_to(root) for p in root.rglob("*") if p.suffix.lower() in SUFFIXES)
    names = sorted(p.as_posix() for p in found if not any(x.startswith(".") for x in p.parts))
    if not names:
        raise DatasetMissingError(f"{root} contains no picture ({', '.join(SUFFIXES)})")
    return names


def _entries(names: Sequence[str]) -> list[tuple[object, object]]:
    stems = [Path(name).with_suffix("").as_posix() for name in names]
    times = Counter(stems)
    return [
        (stem if times[stem] == 1 else name, {"image": name})
        for stem, name in zip(stems, names, strict=True)
    ]
