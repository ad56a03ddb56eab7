"""A run's directory: all files of a run are read and written through this object."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import yaml
from PIL import Image

from zerocon.core.checks import ConfigError
from zerocon.core.plain_yaml import loaded
from zerocon.core.records import Record
from zerocon.ledger import records as stored
from zerocon.ledger.atomic import write_atomic
from zerocon.ledger.claims import Claims
from zerocon.ledger.identity import Identity
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import RecordLog
from zerocon.ledger.status import Status, is_running, read_sessions, status

ORIGIN, CONFIG, INPUTS = "run.json", "config.yaml", "inputs.json"
GALLERY, SHEET, SUMMARY = "gallery.html", "gallery.png", "summary.json"
SESSIONS, SYNCED = "sessions.jsonl", "synced.json"

State = tuple[int, int]  # a file's size and modification time in nanoseconds


class RunDirectory:
    """One run on disk. A file is read once, and again only after it has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._origin: Origin | None = None
        self._inputs: Identity | None = None
        self._config: dict[str, Any] | None = None
        self._records: tuple[State, list[Record]] | None = None

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    # What the run is

    @property
    def begun(self) -> bool:
        return self.find_origin() is not None

    def find_origin(self) -> Origin | None:
        """The run's origin; None if no run was begun here."""
        if self._origin is None and (self.path / ORIGIN).exists():
            self._origin = self._read_origin()
        return self._origin

    @property
    def origin(self) -> Origin:
        """The run's origin; ConfigError if no run was begun here."""
        origin = self.find_origin()
        if origin is None:
            raise ConfigError(f"{self.path} is no run's directory: it has no {ORIGIN}")
        return origin

    @property
    def inputs(self) -> Identity | None:
        """What the numbers depend on; None if the run was made before this was recorded."""
        if self._inputs is None and self.origin.inputs:
            self._inputs = self._read_inputs()
        return self._inputs

    @property
    def config(self) -> dict[str, Any]:
        """All settings that the run was begun with."""
        if self._config is None:
            self._config = self._read_config()
        return self._config

    def begin(self, origin: Origin, inputs: Identity, config: Mapping[str, Any]) -> None:
        """Write the run's metadata. The origin comes last: a run exists once it is there."""
        with self._alone():
            if (self.path / ORIGIN).exists():
                return  # another shard was faster
            self.write_config(config)
            write_atomic(self.path / INPUTS, inputs.to_json())
            self.write_origin(origin)
        self._inputs = inputs

    def mark_mixed(self, changed: str) -> None:
        """Note that inputs changed while the run was made; it can't be continued or shown."""
        self.write_origin(replace(self.origin, mixed=changed))

    def write_origin(self, origin: Origin) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        content = json.dumps(asdict(origin), indent=2) + "\n"
        write_atomic(self.path / ORIGIN, content.encode())
        self._origin = origin

    def write_config(self, config: Mapping[str, Any]) -> None:
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path / CONFIG, text.encode())
        self._config = dict(config)

    @property
    def has_config(self) -> bool:
        return (self.path / CONFIG).is_file()

    def _read_origin(self) -> Origin:
        file = self.path / ORIGIN
        try:
            return Origin(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{file} can't be read as a run's origin: {error}") from error

    def _read_inputs(self) -> Identity:
        file = self.path / INPUTS
        try:
            inputs = Identity.from_json(file.read_bytes())
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{file} can't be read: {error}") from error
        if inputs.digest != self.origin.inputs:
            raise ConfigError(f"{file} is damaged: its digest is not the one in {ORIGIN}")
        return inputs

    def _read_config(self) -> dict[str, Any]:
        file = self.path / CONFIG
        try:
            config = loaded(file.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"{file} can't be read as a run's config: {error}") from error
        if not isinstance(config, dict):
            raise ConfigError(f"{file} holds no settings")
        return cast("dict[str, Any]", config)

    @contextmanager
    def _alone(self) -> Generator[None]:
        """One process at a time: two shards may begin the same run at once."""
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            with suppress(OSError):  # some network file systems lock no folders
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    # Its cases

    def log(self, *, retry_failed: bool = True) -> RecordLog:
        """The records, open for writing."""
        return RecordLog(self.path, retry_failed)

    def records(self) -> list[Record]:
        """The last record of each case; an empty list if there is none yet."""
        state = self._state(stored.FILE_NAME)
        if state is None:
            return []
        if self._records is None or self._records[0] != state:
            self._records = state, stored.read_records(self.path)
        return self._records[1]

    def done_cases(self, *, retry_failed: bool) -> frozenset[str]:
        """The cases with nothing left to do: recorded, and with their picture."""
        return stored.done_cases(self.path, self.records(), retry_failed=retry_failed)

    def records_in_order(self) -> list[Record]:
        """The records of the run's cases, in the dataset's order."""
        place = {case_id: i for i, case_id in enumerate(self.origin.case_ids)}
        mine = [record for record in self.records() if record.case in place]
        return sorted(mine, key=lambda record: place[record.case])

    def records_state(self) -> State | None:
        """A value that changes whenever a record is added."""
        return self._state(stored.FILE_NAME)

    def save_picture(self, case_id: str, picture: Image.Image) -> tuple[str, str]:
        """Store a case's edited picture; return its path in the directory and its SHA-256."""
        return stored.save_image(self.path, case_id, picture)

    def picture(self, record: Record) -> Image.Image:
        return Image.open(self.path / str(record.image))

    @property
    def pictures(self) -> Path:
        return self.path / stored.IMAGES

    def damaged_pictures(self, records: Sequence[Record], *, thoroughly: bool) -> dict[str, str]:
        """{case: what is wrong with its picture}; `thoroughly` compares checksums."""
        look = stored.verify_checksums if thoroughly else stored.verify_images
        return look(self.path, records)

    def claims(self) -> Claims:
        return Claims(self.path)

    def status(self) -> Status:
        origin = self.find_origin()
        cases = origin.case_ids if origin else ()
        return status(cases, self.records(), running=is_running(self.path))

    # What is written about it

    @property
    def has_reports(self) -> bool:
        return (self.path / GALLERY).exists()

    @property
    def gallery(self) -> Path:
        return self.path / GALLERY

    def sessions(self) -> list[dict[str, Any]]:
        """The cost of each session, and of each worker in it."""
        return read_sessions(self.path / SESSIONS)

    def note_session(self, session: Mapping[str, Any]) -> None:
        with (self.path / SESSIONS).open("a") as file:
            file.write(json.dumps(dict(session)) + "\n")

    def synced(self) -> dict[str, str]:
        """Tracker -> digest of the records that were uploaded to it."""
        file = self.path / SYNCED
        return json.loads(file.read_text()) if file.exists() else {}

    def write_synced(self, synced: Mapping[str, str]) -> None:
        write_atomic(self.path / SYNCED, (json.dumps(dict(synced), indent=2) + "\n").encode())

    # As a directory

    def move(self, path: Path) -> None:
        self.path.rename(path)
        self.path = path

    def _state(self, name: str) -> State | None:
        try:
            found = (self.path / name).stat()
        except FileNotFoundError:
            return None
        return found.st_size, found.st_mtime_ns
