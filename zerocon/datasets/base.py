"""What all readers share: which cases there are, which are wanted, and saying what is broken.

A reader first lists its entries (text only, no pictures), then loads one case at a time.
An entry that makes no sense is still a case: loading it raises CaseError, so that the run
counts it as failed instead of quietly being about fewer cases.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypedDict, Unpack

from torch import Tensor

from zerocon.core.cases import Case, CaseError, DatasetError, World
from zerocon.core.checks import shown
from zerocon.datasets.images import decode_picture, inside, picture_tensor, read_image

Row = Mapping[str, Any]

DOUBLE = "is there more than once; which one is meant can't be told"


@dataclass(frozen=True, repr=False)
class Broken:
    """Stands where a usable value should be."""

    reason: str

    def __repr__(self) -> str:
        return f"<{self.reason}>"


Listing = Mapping[str, Row | Broken]  # case id -> what the dataset's files say of it


class Choice(TypedDict, total=False):
    """The settings that every reader takes, and hands on: what `Filters` are made of."""

    edit_types: Sequence[str | int] | None
    ids: Sequence[str | int] | None
    limit: int | None
    subset: int | None
    subset_seed: int


@dataclass(frozen=True)
class Filters:
    """Which of the cases: of these types and ids, `subset` of them by lot, the first `limit`."""

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

    def choose(self, types: Mapping[str, str], where: Path) -> list[str]:
        """The ids wanted, in the dataset's order; `types` has every case's edit type."""
        chosen = list(types)
        if self.ids is not None:
            chosen = _only(self.wanted_ids, types, where)
        if self.edit_types is not None:
            chosen = [i for i in chosen if types[i] in self.wanted_types]
        if not chosen:
            raise DatasetError(f"no case of {where} is left by the filters")
        return self._by_lot(chosen)[: self.limit]

    @property
    def wanted_ids(self) -> list[str]:
        return [str(i) for i in self.ids or ()]

    @property
    def wanted_types(self) -> list[str]:
        return [str(t) for t in self.edit_types or ()]

    def _by_lot(self, chosen: list[str]) -> list[str]:
        if self.subset is None or self.subset >= len(chosen):
            return chosen
        drawn = set(Random(self.subset_seed).sample(sorted(chosen), self.subset))
        return [i for i in chosen if i in drawn]

    def said(self) -> list[Any]:
        """What of this changes the choice, for a fingerprint."""
        lot = [] if self.subset is None else [self.subset, self.subset_seed]
        types = None if self.edit_types is None else self.wanted_types
        return [types, None if self.ids is None else self.wanted_ids, self.limit, *lot]


def _only(wanted: Sequence[str], types: Mapping[str, str], where: Path) -> list[str]:
    unknown = [i for i in wanted if i not in types]
    if unknown:
        raise DatasetError(f"ids: {where} has no case {unknown[0]!r}")
    return [i for i in types if i in set(wanted)]


class FileDataset:
    """Cases from files below `root`. A reader says how an entry becomes a case (`_case`)."""

    name: str = ""
    world: World = "photographs"
    native_side: int = 512  # pixels, where no backbone asks for another size
    type_names: tuple[str, ...] | None = ()  # the edit types there are; None: any text

    def __init__(
        self,
        root: str | Path,
        side: int,
        where: Path,
        listing: Listing,
        said: Any,
        **chosen: Unpack[Choice],
    ) -> None:
        """`where` is the file or folder to name in messages; `said` is all that its entries say."""
        filters = Filters(**chosen)
        self.root, self.side, self.where, self._listing = Path(root), side, where, listing
        self._check_types(filters)
        self._ids = filters.choose({i: self._type_of(i) for i in listing}, where)
        content = json.dumps([said, filters.said()], default=str)
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def load(self, case_id: str) -> Case:
        entry = self.entry(case_id)
        try:
            return self._case(case_id, entry)
        except CaseError:
            raise
        except Exception as error:  # one bad case never ends a run, whatever nobody thought of
            raise CaseError(f"it can't be read: {type(error).__name__}: {error}") from error

    def entry(self, case_id: str) -> Row:
        """What the dataset's files say of a case."""
        if case_id not in self._listing:
            raise CaseError(f"there is no case {case_id!r} in {self.where}")
        entry = self._listing[case_id]
        if isinstance(entry, Broken):
            raise CaseError(f"case {case_id!r} {entry.reason}")
        return entry

    def source_path(self, case_id: str) -> str | None:
        """The source picture's path as the dataset writes it: results are often laid out alike."""
        return None

    def _case(self, case_id: str, entry: Row) -> Case:
        raise NotImplementedError

    def _picture(self, place: str | Path, notes: list[str]) -> Tensor:
        """The picture at a place below the root; what had to be converted is noted."""
        image, more = read_image(place, self.root, self.side)
        notes.extend(more)
        return image

    def _decoded(self, data: bytes | None, name: str, notes: list[str]) -> Tensor:
        """The same of a picture in a table's cell, which has a name for messages."""
        picture, more = decode_picture(data or b"", name)
        notes.extend(more)
        return picture_tensor(picture, self.side)

    def _edit_type(self, entry: Row) -> str:
        """The entry's edit type as it is written, right or wrong; "" without one."""
        return ""

    def _type_of(self, case_id: str) -> str:
        entry = self._listing[case_id]
        return "" if isinstance(entry, Broken) else self._edit_type(entry)

    def _check_types(self, filters: Filters) -> None:
        if filters.edit_types is None or self.type_names is None:
            return
        if not self.type_names:
            raise DatasetError(f"edit_types: {self.name} does not tell edit types apart")
        for wanted in filters.wanted_types:
            if wanted not in self.type_names:
                known = ", ".join(self.type_names)
                raise DatasetError(f"edit_types: {wanted!r} is none of {known}")


def gather(**parts: Callable[[], Any]) -> dict[str, Any]:
    """Every part's value; a CaseError says all that is wrong, not only what came first."""
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
    """(id, entry) pairs by id. An id that stands twice or can't be one makes a broken case."""
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
    """An id that can be printed and stored, and what is wrong with the one given."""
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str) or not given.strip():
        return f"entry {place}", f"has the id {shown(given)}; it must be a text that is not empty"
    printable = given.encode("utf-8", "backslashreplace").decode()
    if printable != given:
        return printable, f"has an id with half a character in it ({shown(given)})"
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
    """The edit type of a list that may call its types as it likes."""
    value = entry.get("edit_type")
    return "" if value is None else str(value).strip()


def _whole(value: str, field: str) -> str:
    """JSON can spell half a character, which no file, page or tokenizer takes."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise CaseError(f"{field} has half a character in it ({shown(value)})") from error
    return value


def read_json(name: str, root: Path, hint: str) -> tuple[Any, str]:
    """A JSON file's content and the digest of its bytes; keys that stand twice become Broken."""
    data = read_bytes(name, root, hint)
    try:
        content = json.loads(data, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{root / name} is not valid JSON: {error}") from error
    return content, hashlib.sha256(data).hexdigest()


def read_bytes(name: str, root: Path, hint: str) -> bytes:
    """A file that the whole dataset hangs on; `hint` says what a good dataset looks like."""
    try:
        return inside(name, root).read_bytes()
    except CaseError as error:
        raise DatasetError(str(error).replace("image path", "path", 1)) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{root / name} can't be read ({reason}); {hint}") from error


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        found[key] = Broken(DOUBLE) if key in found else value
    return found
