"""Digests of a case's files, and descriptions of changes to a case."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from zerocon.core.cases import CaseError
from zerocon.core.hashing import FileHasher
from zerocon.datasets.images import MOST_BYTES, real_place

# Used in place of a digest.
REFUSED, MISSING, UNREADABLE, TOO_BIG = "refused", "missing", "unreadable", "too big"
HAPPENED = {
    REFUSED: "lies outside the dataset",
    MISSING: "is missing",
    UNREADABLE: "is unreadable",
    TOO_BIG: "is too big to be a picture",
}
TABLES = (".parquet",)  # have no size limit


def file_part(place: str | Path, root: Path, hasher: FileHasher) -> str:
    """The digest of a file below the root, or the reason for having none."""
    try:
        file = real_place(place, root)
        if not file.endswith(TABLES) and os.stat(file).st_size > MOST_BYTES:  # noqa: PTH116
            return TOO_BIG
        return hasher(Path(file))
    except CaseError:
        return REFUSED
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except OSError:
        return UNREADABLE


def difference(case_id: str, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Describe what changed between two `case_parts` of a case; "" if nothing."""
    names = dict.fromkeys([*before, *now])
    changes = [
        f"the {name} of case {case_id} {_what_happened(before.get(name), now.get(name))}"
        for name in names
        if before.get(name) != now.get(name)
    ]
    return "; ".join(changes)


def _what_happened(before: str | None, now: str | None) -> str:
    if now is None:
        return "is no longer used"
    if before is None:
        return "is new"
    if before == MISSING and now not in HAPPENED:
        return "was missing and now exists"
    return HAPPENED.get(now, "changed")
