"""Text from records, datasets and file names, made safe to print."""

from __future__ import annotations

import re

# Control characters (C0, DEL, C1), marks of writing direction, line separators, and unpaired
# surrogates, which can't be encoded.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: object) -> str:
    """Escape control characters and line breaks, such as `\\x1b` for an escape."""
    return _CONTROLS.sub(_escaped, str(text))


def printable_lines(text: object) -> str:
    """As `printable`, but keep line breaks and tabs."""
    return _CONTROLS.sub(lambda m: m[0] if m[0] in "\n\t" else _escaped(m), str(text))


def counted(number: int, what: str) -> str:
    """A number and its noun: "1 case", "20 cases", "1,000 records"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
