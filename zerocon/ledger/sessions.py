"""What each session of a run cost, as its directory tells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = "sessions.jsonl"


def read_sessions(directory: Path) -> list[dict[str, Any]]:
    """One entry a session (and worker); a line that a killed session left torn is left out."""
    file = directory / FILE
    lines = file.read_text().splitlines() if file.exists() else []
    return [session for session in map(_read, lines) if session is not None]


def _read(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None
