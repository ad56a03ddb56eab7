"""The base of all readers: list the cases, choose among them, report broken ones.

A reader first lists its entries (text only, no pictures), then loads one case at a time.
An invalid entry is still a case: loading it raises CaseError, so that the run counts it as
failed instead of silently having fewer cases.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, ClassVar, TypedDict, Unpack, cast

from PIL import Image
from torch import Tensor

from zerocon.core.cases import Case, CaseError, DatasetError, DatasetMissingError, World
from zerocon.core.checks import shown
from zerocon.core.files import open_regular
from zerocon.core.hashing import FileHasher, digest_of, file_digest
from zerocon.core.size import Size
from zerocon.datasets.identity import file_part
from zerocon.datasets.images import (
    centre_square,
    decode_picture,
    inside,
    open_picture,
    picture_tensor,
)

Row = Mapping[str, Any]

DOUBLE = "is there more than once; it can't be told which one is meant"
MOST_BYTES = 2**30  # largest list of cases; PIE-Bench's has ten million


@dataclass(frozen=True, repr=False)
class Broken:
    """Takes the place of an unusable value."""

    reason: str

    def __repr__(self) -> str:
        return f"<{self.reason}>"


Listing = Mapping[str, Row | Broken]  # case id -> its entry in the dataset's files


class Choice(TypedDict, total=False):
    """Settings that every reader passes on to `Filters`."""

    edit_types: Sequence[str | int] | None
    ids: Sequence[str | int] | None
    limit: int | None
    subset: int | None
    subset_seed: int


@dataclass(frozen=True)
class Filters:
    """Which cases to use: by type and id, then a random subset, then the first `limit`."""

    edit_types: Sequence[str | int] | None = None
    ids: Sequence[str | int] | None = None
    limit: int | None = None
    subset: int | None = None
    subset_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("limit", "subset"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DatasetError(
                    f"{name} is {value}; it must be at least 1, or null for all cases"
                )
        for name in ("edit_types", "ids"):
            _check_names(name, getattr(self, name))
        if self.subset_seed < 0:
            raise DatasetError(f"subset_seed is {self.subset_seed}; it must be at least 0")

    def choose(self, types: Mapping[str, str], where: Path) -> list[str]:
        """The chosen cases' ids in the dataset's order. `types`: each case's edit type."""
        chosen = list(types)
        if self.ids is not None:
            chosen = _only(self.wanted_ids, types, where)
        if self.edit_types is not None:
            chosen = [i for i in chosen if types[i] in self.wanted_types]
        if not chosen:
            raise DatasetError(f"the filters leave no case of {where}")
        return self._random_subset(chosen)[: self.limit]

    @property
    def wanted_ids(self) -> list[str]:
        return [str(i) for i in self.ids or ()]

    @property
    def wanted_types(self) -> list[str]:
        return [str(t) for t in self.edit_types or ()]

    def _random_subset(self, chosen: list[str]) -> list[str]:
        if self.subset is None or self.subset >= len(chosen):
            return chosen
        drawn = set(Random(self.subset_seed).sample(sorted(chosen), self.subset))
        return [i for i in chosen if i in drawn]


def _check_names(setting: str, values: Sequence[object] | None) -> None:
    if values is None:
        return
    if not values:
        raise DatasetError(f"{setting} is an empty list; give some, or null for all cases")
    for value in values:
        if not isinstance(value, (str, int)) or isinstance(value, bool):
            raise DatasetError(f"{setting} contains {value!r}; expected texts or whole numbers")


def _only(wanted: Sequence[str], types: Mapping[str, str], where: Path) -> list[str]:
    unknown = [i for i in wanted if i not in types]
    if unknown:
        raise DatasetError(f"ids: {where} has no case {shown(unknown[0])}")
    return [i for i in types if i in set(wanted)]


class FileDataset:
    """Cases from files below `root`. A subclass turns an entry into a case (`_case`).

    It also lists the files that this reads (`_files`), as they are part of the dataset's identity.
    """

    name: str = ""
    world: World = "photographs"
    native_side: int = 512  # pixels, unless the backbone needs another size
    squares: bool = False  # pictures are their centre squares, as the masks are of these
    type_names: ClassVar[tuple[str, ...] | None] = ()  # the known edit types; None: any text

    def __init__(
        self,
        root: str | Path,
        pixels: Size,
        where: Path,
        listing: Listing,
        settings: Sequence[object] = (),
        **chosen: Unpack[Choice],
    ) -> None:
        """`pixels`: height and width of the pictures that are loaded. `where` is the file or
        folder named in messages.

        `settings` are the reader's own settings that affect the cases.
        """
        self.check_settings(chosen)
        self.root, self.pixels, self.where, self._listing = Path(root), pixels, where, listing
        self._settings = list(settings)
        self._ids = Filters(**chosen).choose({i: self._type_of(i) for i in listing}, where)

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Raise DatasetError for an invalid setting, without reading any file."""
        chosen = {name: settings[name] for name in Choice.__annotations__ if name in settings}
        cls._check_types(Filters(**cast("Choice", chosen)))

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def load(self, case_id: str) -> Case:
        entry = self.entry(case_id)
        try:
            return self._case(case_id, entry)
        except CaseError:
            raise
        except Exception as error:  # a bad case never ends a run
            raise CaseError(f"it can't be read: {type(error).__name__}: {error}") from error

    def entry(self, case_id: str) -> Row:
        """The case's entry in the dataset's files."""
        if case_id not in self._listing:
            raise CaseError(f"there is no case {case_id!r} in {self.where}")
        entry = self._listing[case_id]
        if isinstance(entry, Broken):
            raise CaseError(f"case {case_id!r} {entry.reason}")
        return entry

    @property
    def fingerprint(self) -> str:
        """The start of the dataset's identity, computed on first use."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return self.identity(file_digest)[:16]

    def identity(self, hasher: FileHasher = file_digest) -> str:
        """A digest of the chosen cases: their texts and the contents of their files.

        Raises DatasetMissingError if the dataset's folder is gone.
        """
        if not self.root.is_dir():
            raise DatasetMissingError(f"the dataset's folder {self.root} is gone")
        return digest_of([[case_id, self.case_digest(case_id, hasher)] for case_id in self._ids])

    def case_digest(self, case_id: str, hasher: FileHasher = file_digest) -> str:
        """A digest of one case: its texts and the contents of its files."""
        return digest_of(self.case_parts(case_id, hasher))

    def case_parts(self, case_id: str, hasher: FileHasher = file_digest) -> dict[str, str]:
        """The digest of each part of a case, so that messages can name the changed part.

        `entry` is the part from the dataset's list; the others are files, such as `picture`.
        The digest of a missing or unreadable file says so: the case fails, and counts as
        changed once the file is there.
        """
        entry = self._listing[case_id]
        if isinstance(entry, Broken):
            return {"entry": digest_of(entry.reason)}
        said = [self._settings, self._type_of(case_id), self._texts(entry)]
        return {"entry": digest_of(said), **self._file_parts(entry, hasher)}

    def _file_parts(self, entry: Row, hasher: FileHasher) -> dict[str, str]:
        try:
            files = self._files(entry)
        except CaseError as error:
            return {"files": str(error)}
        return {part: file_part(place, self.root, hasher) for part, place in files.items()}

    def source_path(self, case_id: str) -> str | None:
        """The source picture's path as in the dataset, which results often share."""
        return None

    def _case(self, case_id: str, entry: Row) -> Case:
        raise NotImplementedError

    def _files(self, entry: Row) -> Mapping[str, str | Path]:
        """The files that `_case` reads, as paths below the root, by their part of the case."""
        raise NotImplementedError

    def _texts(self, entry: Row) -> Any:
        """The values that `_case` takes from the dataset's lists."""
        return {name: value for name, value in entry.items() if name != "place"}

    def _picture(self, place: str | Path, notes: list[str]) -> Tensor:
        """The picture at a path below the root; conversions are added to the notes."""
        picture, more = open_picture(place, self.root)
        notes.extend(more)
        return self._sized(picture)

    def _decoded(self, data: bytes | None, name: str, notes: list[str]) -> Tensor:
        """The picture in a table's cell; messages call it `name`."""
        picture, more = decode_picture(data or b"", name)
        notes.extend(more)
        return self._sized(picture)

    def _sized(self, picture: Image.Image) -> Tensor:
        return picture_tensor(centre_square(picture) if self.squares else picture, self.pixels)

    def _edit_type(self, entry: Row) -> str:
        """The entry's edit type as written, valid or not; "" if there is none."""
        return ""

    def _type_of(self, case_id: str) -> str:
        entry = self._listing[case_id]
        return "" if isinstance(entry, Broken) else self._edit_type(entry)

    @classmethod
    def _check_types(cls, filters: Filters) -> None:
        if filters.edit_types is None or cls.type_names is None:
            return
        if not cls.type_names:
            raise DatasetError(f"edit_types: {cls.name} has no edit types to choose from")
        for wanted in filters.wanted_types:
            if wanted not in cls.type_names:
                known = ", ".join(cls.type_names)
                raise DatasetError(f"edit_types: {shown(wanted)} is not one of {known}")


def gather(**parts: Callable[[], Any]) -> dict[str, Any]:
    """Evaluate all parts; the CaseError lists all problems, not only the first."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, read in parts.items():
        try:
            values[name] = read()
        except CaseError as error:
            problems.append(str(error))
    if problems:
        raise CaseError("; ".join(dict.fromkeys(problems)))
    return values


def listed(
    entries: Sequence[tuple[object, object]], kind: str = "an object"
) -> dict[str, Row | Broken]:
    """Index (id, entry) pairs by id. A repeated or unusable id makes a broken case."""
    listing: dict[str, Row | Broken] = {}
    for place, (given, entry) in enumerate(entries):
        case_id, problem = _case_id(given, place)
        if case_id in listing:
            listing[case_id] = Broken(DOUBLE)
        elif problem:
            listing[case_id] = Broken(problem)
        elif isinstance(entry, (Mapping, Broken)):
            listing[case_id] = entry
        else:
            listing[case_id] = Broken(f"is {shown(entry)}; expected {kind}")
    return listing


def _case_id(given: object, place: int) -> tuple[str, str]:
    """A printable id, and what is wrong with the given one ("" if nothing)."""
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str) or not given.strip():
        return f"entry {place}", f"has the id {shown(given)}; it must be a text that is not empty"
    printable = given.encode("utf-8", "backslashreplace").decode()
    if printable != given:
        return printable, f"has an id with an unpaired surrogate ({shown(given)})"
    return given, ""


def text(entry: Row, field: str) -> str:
    value = entry.get(field)
    if not isinstance(value, str) or not value.strip():
        raise CaseError(f"{field} is {shown(value)}; it must be a text that is not empty")
    return _whole(value, field)


def optional_text(entry: Row, field: str) -> str:
    value = entry.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CaseError(f"{field} is {shown(value)}; it must be a text, or left out")
    return _whole(value, field).strip()


def free_type(entry: Row) -> str:
    """The edit type, in lists where any text is a type."""
    value = entry.get("edit_type")
    return "" if value is None else str(value).strip()


def _whole(value: str, field: str) -> str:
    """Refuse unpaired surrogates: JSON can contain them, but no file, page or tokenizer."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise CaseError(f"{field} has an unpaired surrogate ({shown(value)})") from error
    return value


def read_json(name: str, root: Path, hint: str) -> Any:
    """A JSON file's content; values of repeated keys become Broken."""
    data = read_bytes(name, root, hint)
    try:
        return parse_json(data)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{root / name} is not valid JSON: {error}") from error


def parse_json(data: str | bytes) -> Any:
    return json.loads(data, object_pairs_hook=_without_doubles)


def read_bytes(name: str, root: Path, hint: str) -> bytes:
    """Read a file that the whole dataset needs; `hint` describes a valid dataset."""
    try:
        with open_regular(inside(name, root)) as file:
            if os.fstat(file.fileno()).st_size > MOST_BYTES:
                raise DatasetError(f"{root / name} has more than {MOST_BYTES} bytes; {hint}")
            return file.read(MOST_BYTES)
    except CaseError as error:
        raise DatasetError(str(error).replace("image path", "path", 1)) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetMissingError(f"{root / name} can't be read ({reason}); {hint}") from error


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        found[key] = Broken(DOUBLE) if key in found else value
    return found
