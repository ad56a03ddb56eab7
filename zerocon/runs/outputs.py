"""Edited pictures made elsewhere: how they are found and read.

A case's picture may be in one of these places below the folder given:

- as the published evaluation of PIE-Bench expects it: at the source picture's own path, in the
  folder or in its `annotation_images/`, with the suffix of any picture format;
- flat: the case's id with such a suffix;
- in such a folder for each method: each method is then a run of its own;
- where a CSV file with the columns `case` and `path` (and perhaps `method`) says.

The rules for pictures of another shape or size are fixed, and a record notes what was done.
Of a row (or column) of squares, or of other pictures with the wanted aspect ratio, the last one
is the edited picture; any other picture is cropped to its middle. The published evaluation takes
the last 512x512 pixels of every picture that is not square, whatever its height: so does the
published protocol at 512x512 pixels, and at another size it takes the last part of that aspect
ratio. A picture of another size is resized as the sources are.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from zerocon.core.cases import CaseError
from zerocon.core.checks import ConfigError
from zerocon.core.hashing import FileHasher, file_digest
from zerocon.core.size import Size
from zerocon.datasets.base import FileDataset
from zerocon.datasets.csv_lists import CsvError, read_csv
from zerocon.datasets.images import SUFFIXES, inside, open_picture, resized
from zerocon.datasets.pie_bench import PICTURES
from zerocon.ledger.records import file_name

JPEG_START = b"\xff\xd8"
PUBLISHED_SIDE = 512  # pixels of PIE-Bench's pictures


@dataclass(frozen=True)
class Outputs:
    """One method's edited pictures: case id -> paths below `root`; there should be one."""

    name: str
    root: Path
    files: Mapping[str, Sequence[str]]

    def fingerprint(self, hasher: FileHasher = file_digest) -> str:
        """A digest of the pictures' content: changed pictures are another run."""
        digest = hashlib.sha256()
        for case_id, paths in sorted(self.files.items()):
            digest.update(json.dumps([case_id, *paths]).encode())
            for path in paths:
                digest.update(_digest(path, self.root, hasher))
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Rules:
    """How pictures are read: `published` and `legacy_jpeg` as the published evaluation does."""

    size: Size
    published: bool = False
    legacy_jpeg: bool = False


def _digest(path: str, root: Path, hasher: FileHasher) -> bytes:
    try:
        return bytes.fromhex(hasher(inside(path, root)))
    except (CaseError, OSError) as error:
        return str(error).encode("utf-8", "backslashreplace")


def find_outputs(place: Path, dataset: FileDataset, methods: Sequence[str] = ()) -> list[Outputs]:
    """The pictures to score at `place`, one item a method; ConfigError if there are none."""
    if place.is_file():
        found = _from_csv(place)
    elif place.is_dir():
        found = _from_folder(place, dataset)
    else:
        raise ConfigError(f"{place} is neither a folder with pictures nor a CSV file")
    known = {outputs.name for outputs in found}
    for name in methods:
        if name not in known:
            raise ConfigError(f"there is no method {name!r} in {place}; there are {sorted(known)}")
    return [outputs for outputs in found if not methods or outputs.name in methods]


def _from_folder(folder: Path, dataset: FileDataset) -> list[Outputs]:
    sources = {case_id: _source_path(dataset, case_id) for case_id in dataset.ids}
    whole = _matched(folder, sources)
    if whole.files:
        return [whole]
    inner = (p for p in sorted(folder.iterdir()) if p.is_dir() and not p.is_symlink())
    found = [outputs for p in inner if (outputs := _matched(p, sources)).files]
    if not found:
        case_id, source = next(iter(sources.items()))
        looked = [*([source, f"{PICTURES}/{source}"] if source else []), f"{case_id}.png"]
        raise ConfigError(
            f"{folder} holds no picture of a case of {dataset.name}. For case {case_id}, for "
            f"example, {' or '.join(looked)} was looked for, there and in the folders in it"
        )
    return found


def _source_path(dataset: FileDataset, case_id: str) -> str | None:
    try:
        return dataset.source_path(case_id)
    except CaseError:
        return None


def _matched(folder: Path, sources: Mapping[str, str | None]) -> Outputs:
    index = _index(folder)
    files = {case_id: _paths(index, case_id, source) for case_id, source in sources.items()}
    return Outputs(folder.resolve().name, folder, {i: paths for i, paths in files.items() if paths})


def _index(folder: Path) -> dict[str, list[str]]:
    """Every picture below the folder by its path without suffix."""
    index: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            name = path.relative_to(folder).as_posix()
            index.setdefault(_stem(name), []).append(name)
    return index


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix("")) if PurePosixPath(path).name else path


def _paths(index: Mapping[str, list[str]], case_id: str, source: str | None) -> list[str]:
    """The pictures that may be this case's; the one with the source's own name before others."""
    for name in (source, f"{PICTURES}/{source}") if source else ():
        found = index.get(_stem(name), [])
        if found:
            return [name] if name in found else found
    return index.get(case_id) or index.get(file_name(case_id)) or []


def _from_csv(file: Path) -> list[Outputs]:
    """Paths are relative to the CSV file's folder."""
    try:
        rows = read_csv(file.read_bytes(), ("case", "path"))
    except CsvError as error:
        raise ConfigError(f"{file} {error}; it needs the columns `case` and `path`") from error
    except OSError as error:
        raise ConfigError(f"{file} can't be read ({error.strerror})") from error
    methods: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        cases = methods.setdefault(row.get("method") or file.stem, {})
        cases.setdefault(row["case"] or "", []).append(row["path"] or "")
    return [Outputs(name, file.parent, cases) for name, cases in methods.items()]


def edited_picture(path: str, root: Path, rules: Rules) -> tuple[Image.Image, tuple[str, ...]]:
    """The edited picture in a file, of the size `rules.size`, and notes of what was done to it."""
    picture, notes = open_picture(path, root)
    said = list(notes)
    if rules.legacy_jpeg and not _is_jpeg(path, root):
        picture = recompressed(picture)
        said.append("recompressed as JPEG, as the published outputs were")
    size, whole = rules.size, Size.of(picture)
    if size.within(whole) != whole:
        exact = rules.published and size == Size.square(PUBLISHED_SIDE)
        picture, note = (
            published_crop(picture)
            if exact
            else last_part(picture, size, published=rules.published)
        )
        said.append(note)
    if Size.of(picture) != size:
        before, after = (_in_words(s) for s in (Size.of(picture), size))
        said.append(f"resized from {before} to {after} pixels")
    return resized(picture, size), tuple(said)


def _in_words(size: Size) -> str:
    return str(size.width) if size.is_square else f"{size.width}x{size.height}"


def published_crop(picture: Image.Image) -> tuple[Image.Image, str]:
    """The last 512x512 pixels; where the picture has fewer, the rest is black, as published."""
    width, height = picture.size
    left, top = width - PUBLISHED_SIDE, height - PUBLISHED_SIDE
    note = f"the last 512x512 pixels of a {width}x{height} picture, as published"
    if min(left, top) < 0:
        note += ", which are partly outside it and black"
    return picture.crop((left, top, width, height)), note


def last_part(picture: Image.Image, size: Size, *, published: bool) -> tuple[Image.Image, str]:
    """The last of a strip of pictures with the aspect ratio of `size`; the middle of anything else
    (published: the end)."""
    width, height = picture.size
    part = size.within(Size.of(picture))
    if (width % part.width == 0 and height % part.height == 0) or published:
        last = picture.crop((width - part.width, height - part.height, width, height))
        which = "square" if size.is_square else f"{part.width}x{part.height} pixels"
        return last, f"the last {which} of a {width}x{height} picture"
    left, top = (width - part.width) // 2, (height - part.height) // 2
    middle = picture.crop((left, top, left + part.width, top + part.height))
    return middle, f"the middle of a {width}x{height} picture"


def recompressed(picture: Image.Image) -> Image.Image:
    """Through JPEG at Pillow's default quality, as the published scripts save their outputs."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG")
    return Image.open(buffer).convert("RGB")


def _is_jpeg(path: str, root: Path) -> bool:
    with inside(path, root).open("rb") as file:
        return file.read(len(JPEG_START)) == JPEG_START
