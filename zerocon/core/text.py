"""Text from records, datasets and file names, made safe to print."""

from __future__ import annotations

import re

# Control characters (C0, DEL, C1), marks that reverse the direction of writing, separators of
# lines, and halves of surrogate pairs, which no encoding can print.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: object) -> str:
    """One line that can't move the cursor, colour or overwrite anything: `\\x1b` for an escape."""
    return _CONTROLS.sub(_escaped, str(text))


def printable_lines(text: object) -> str:
    """As `printable`, but line breaks and tabs stay."""
    return _CONTROLS.sub(lambda m: m[0] if m[0] in "\n\t" else _escaped(m), str(text))


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
