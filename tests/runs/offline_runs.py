"""What an offline W&B run holds, read from its `.wandb` file: a log in LevelDB's format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, 7
FULL, LAST = 1, 4


@dataclass
class OfflineRun:
    name: str = ""
    group: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    tables: list[dict[str, Any]] = field(default_factory=list)


def offline_runs(folder: Path) -> list[OfflineRun]:
    return [_read(file) for file in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]


def _read(file: Path) -> OfflineRun:
    run = OfflineRun()
    for data in _records(file.read_bytes()):
        record = Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.name, run.group = record.run.display_name, record.run.run_group
            run.config |= {u.key: json.loads(u.value_json) for u in record.run.config.update}
        elif kind == "summary":
            run.summary |= {
                ".".join(u.nested_key) or u.key: json.loads(u.value_json)
                for u in record.summary.update
            }
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    run.tables = [json.loads(t.read_text()) for t in file.parent.rglob("*.table.json")]
    return run


def _records(data: bytes) -> Iterator[bytes]:
    """Each record may lie in several pieces; none of them crosses a block's end."""
    at, record = HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in (FULL, LAST):
            yield record
            record = b""
