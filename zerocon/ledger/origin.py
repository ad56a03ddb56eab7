"""Where a run's numbers come from: `run.json`, written when the run begins."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zerocon.core.checks import ConfigError
from zerocon.ledger.atomic import write_atomic

FILE = "run.json"


@dataclass(frozen=True)
class Origin:
    """What its directory's name alone does not say."""

    name: str
    case_ids: list[str]
    columns: list[dict[str, Any]]
    protocol: str
    backbone: dict[str, str]
    dataset: dict[str, str]
    judges: dict[str, str]  # metric -> fingerprint of the weights it judges by
    uses_mask: bool | None  # does the method look at the benchmark's mask? None: nobody said
    provenance: dict[str, Any]

    @classmethod
    def read(cls, directory: Path) -> Origin | None:
        file = directory / FILE
        if not file.exists():
            return None
        try:
            return cls(**json.loads(file.read_text()))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{file} does not say where a run comes from: {error}") from error

    def write(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        write_atomic(directory / FILE, (json.dumps(asdict(self), indent=2) + "\n").encode())
