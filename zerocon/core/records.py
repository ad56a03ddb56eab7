"""Records of edited cases, written as lines of JSON.

JSON has no literals for nan and infinity: they are written as null and "inf".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any, NoReturn

SCHEMA = 1
STATUSES = ("ok", "failed")


class RecordError(Exception):
    """The records can't be read or written. The message names the file and the line."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Everything known about one case of one run."""

    schema: int = SCHEMA
    case: str
    status: str  # "ok" or "failed"
    error: str | None = None  # why it failed
    edit_type: str = ""
    edit_name: str = ""
    source_prompt: str = ""
    target_prompt: str = ""
    instruction: str = ""
    image: str | None = None  # path in the run's directory
    sha256: str | None = None  # of that file
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problem = _inconsistency(self)
        if problem:
            raise RecordError(f"record of case {self.case!r}: {problem}")

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    def to_line(self) -> bytes:
        content = asdict(self) | {"metrics": {k: _to_json(v) for k, v in self.metrics.items()}}
        return json.dumps(content, allow_nan=False).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Record:
        content = json.loads(line, parse_constant=_not_json)
        if not isinstance(content, dict):
            raise RecordError("it is not a JSON object")
        return cls(**_checked(content))


def _inconsistency(record: Record) -> str:
    """Describe an inconsistency in the record; empty if there is none."""
    rules = {
        f"schema is {record.schema}; this version reads {SCHEMA}": record.schema == SCHEMA,
        "the case id is empty": record.case != "",
        f"status is {record.status!r}; it must be 'ok' or 'failed'": record.status in STATUSES,
        "a failed case has an error, an ok one has none": record.ok == (not record.error),
        "image and sha256 come together": (record.image is None) == (record.sha256 is None),
        f"image {record.image!r} leaves the run's directory": _stays_inside(record.image),
        f"seconds is {record.seconds}; it must be at least 0": 0 <= record.seconds < math.inf,
    }
    return "; ".join(problem for problem, kept in rules.items() if not kept)


def _stays_inside(path: str | None) -> bool:
    if path is None:
        return True
    parts = PurePosixPath(path)
    inside = bool(parts.parts) and not parts.is_absolute() and ".." not in parts.parts
    return inside and "\0" not in path


def _to_json(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return float(value)


def _from_json(name: str, value: object) -> float:
    if value is None:
        return math.nan
    if value in ("inf", "-inf"):
        return float(str(value))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise RecordError(f'metric {name!r} is {value!r}; it must be a number, null or "inf"')


def _not_json(literal: str) -> NoReturn:
    raise RecordError(f"{literal} is not a JSON number")


_TYPES: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "error": (str, type(None)),
    "image": (str, type(None)),
    "sha256": (str, type(None)),
    "metrics": (dict,),
    "seconds": (int, float),
    "notes": (list,),
}


def _checked(content: dict[str, Any]) -> dict[str, Any]:
    """Check that a record has exactly the known fields, each of its type."""
    names = {item.name for item in fields(Record)}
    # The schema first: another version's fields differ, and the message should give that reason.
    if content.get("schema", SCHEMA) != SCHEMA:
        raise RecordError(f"schema is {content['schema']!r}; this version reads {SCHEMA}")
    if content.keys() != names:
        missing, unknown = sorted(names - content.keys()), sorted(content.keys() - names)
        raise RecordError(f"missing fields {missing}, unknown fields {unknown}")
    for name, value in content.items():
        allowed = _TYPES.get(name, (str,))
        if not isinstance(value, allowed) or isinstance(value, bool):
            wanted = " or ".join(kind.__name__ for kind in allowed)
            raise RecordError(f"{name} is {value!r}; it must be {wanted}")
    if not all(isinstance(note, str) for note in content["notes"]):
        raise RecordError("notes must be strings")
    metrics = {name: _from_json(name, value) for name, value in content["metrics"].items()}
    return content | {"metrics": metrics, "notes": tuple(content["notes"])}
