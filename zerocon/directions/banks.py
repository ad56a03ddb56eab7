"""Banks of given sentences: text files by concept, or one JSON file."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from zerocon.core.cases import CaseError
from zerocon.core.checks import ConfigError
from zerocon.directions.concepts import Concept


def file_sentences(place: Path, concept: Concept) -> list[str]:
    """The sentences of a concept, looked up by its differing words or by its phrase."""
    banks = read_banks(place)
    for name in (concept.words, concept.phrase, _without_article(concept.phrase)):
        if name and name.lower() in banks:
            return banks[name.lower()]
    raise CaseError(
        f"{place} has no sentences about {concept.words or concept.phrase!r} (in "
        f"{concept.phrase!r}); it has: {', '.join(sorted(banks))}"
    )


def check_place(place: Path) -> None:
    """Raise ConfigError if there are no sentences."""
    try:
        read_banks(place)
    except OSError as error:
        raise ConfigError(f"direction.file={place} can't be read: {error.strerror}") from error


def read_banks(place: Path) -> dict[str, list[str]]:
    """{concept: sentences}, from a folder's `<concept>.txt` or a JSON file."""
    inside = sorted(place.glob("*.txt")) if place.is_dir() else []
    return _read_banks(place, tuple(map(last_change, (place, *inside))))


def last_change(file: Path) -> int:
    """Modification time in nanoseconds; 0 if the file is missing."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


@cache
def _read_banks(place: Path, _changed: tuple[int, ...]) -> dict[str, list[str]]:
    if place.is_dir():
        named = {f.stem.lower(): f.read_text("utf-8") for f in sorted(place.glob("*.txt"))}
        banks = {name: _lines(text.splitlines()) for name, text in named.items()}
    else:
        banks = _from_json(place)
    empty = [name for name, sentences in banks.items() if not sentences]
    if empty or not banks:
        what = f"no sentence about {empty[0]!r}" if empty else "no sentences"
        raise ConfigError(f"direction.file: {place} has {what}; {WANTED}")
    return banks


WANTED = (
    "expected a folder of <concept>.txt, one sentence a line, "
    'or a JSON file {"concept": ["a sentence", …], …}'
)


def _from_json(file: Path) -> dict[str, list[str]]:
    data: Any = None
    try:
        data = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"direction.file: {file} is not valid JSON ({error}); {WANTED}"
        ) from error
    if not isinstance(data, dict) or not all(_is_text_list(v) for v in data.values()):
        raise ConfigError(f"direction.file: {file} contains something else; {WANTED}")
    return {str(name).lower(): _lines(sentences) for name, sentences in data.items()}


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(line, str) for line in value)


def _lines(lines: list[str]) -> list[str]:
    return [" ".join(line.split()) for line in lines if line.strip()]


def _without_article(phrase: str) -> str:
    return phrase.partition(" ")[2]
