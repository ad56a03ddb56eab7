"""One run: its cases, in chunks, through a crew of workers, into records.

Running it again continues it. A case that fails becomes a failed record and the run goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from threading import Thread

from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from zerocon.config.settings import RunSettings
from zerocon.core.checks import ConfigError
from zerocon.core.records import Record, RecordError
from zerocon.core.text import printable
from zerocon.ledger.claims import Chunk, Claims, Shard, Waiting, chunks_left
from zerocon.ledger.locks import SAY_AFTER
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import RecordLog
from zerocon.ledger.status import status_of
from zerocon.runs.costs import note_session
from zerocon.runs.crews import GRACE, Chunks, Crew, start_crew
from zerocon.runs.results import (
    LATER,
    begin,
    code_differs,
    finish,
    heed_code,
    is_complete,
    report,
)
from zerocon.runs.reuse import take_records, twin_of
from zerocon.runs.worker import Done
from zerocon.trackers.base import Guarded, Tracker

CONSOLE = Console()


@dataclass(frozen=True)
class Outcome:
    directory: Path
    done: int
    failed: int


def _says_how_far(run: Callable[[RunSettings], Outcome]) -> Callable[[RunSettings], Outcome]:
    """Ctrl-C ends the run with words: how many cases are recorded, and how to go on."""

    @wraps(run)
    def watched(settings: RunSettings) -> Outcome:
        try:
            return run(settings)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(how_far(settings.directory)) from None

    return watched


def how_far(directory: Path) -> str:
    """What to say when a run is interrupted; the command adds that it continues when repeated."""
    try:
        status = status_of(directory)
    except (ConfigError, RecordError, OSError):
        status = None
    if status is None or not status.cases:
        return "interrupted before the first case"
    return f"interrupted: {status.recorded} of {status.cases} cases are recorded in {directory}"


@_says_how_far
def execute(settings: RunSettings) -> Outcome:
    """Do what is left of the run (or of this shard of it), then print and write its results."""
    runner, directory = settings.runner, settings.directory
    heed_code(directory, runner.on_code_change)
    if not is_complete(directory, retry_failed=runner.retry_failed, shard=runner.shard):
        with _mirrored(settings) as tracker, _at_work(settings) as crew:
            _begin(settings, crew.origin)
            work(settings, crew, tracker)
            finish(settings, crew.dataset, tracker)
    whole = is_complete(directory, retry_failed=False)
    if not whole:
        said = f"{directory}: {status_of(directory).words()}"
        CONSOLE.print(printable(said), highlight=False, markup=False)
    return Outcome(directory, *report(directory, CONSOLE, per_type=runner.per_type, whole=whole))


def _begin(settings: RunSettings, origin: Origin) -> None:
    directory = settings.directory
    twin = twin_of(directory, origin)
    if twin is None:
        begin(directory, origin, settings.config)
        return
    provenance = origin.provenance | {"records_from": twin.name}
    begin(directory, replace(origin, provenance=provenance), settings.config)
    take_records(twin, directory)
    said = f"{directory}: the same settings as {twin.name}'s, so its records are taken"
    CONSOLE.print(printable(said), markup=False)


@contextmanager
def _at_work(settings: RunSettings) -> Generator[Crew]:
    started = datetime.now(UTC)
    crew = start_crew(settings)
    try:
        yield crew
    finally:
        spent = crew.spent()
        crew.close()
        for one in spent:
            note_session(settings.directory, started, one)


@contextmanager
def _mirrored(settings: RunSettings) -> Generator[Tracker]:
    """The tracker learns of everything, also of a bad end, such as models that don't load."""
    tracker = Guarded(settings.tracker())
    tracker.start(settings.config, settings.directory.name, settings.name)
    try:
        yield tracker
    except Exception as error:
        tracker.fail(f"{type(error).__name__}: {error}")
        raise
    except BaseException as error:  # Ctrl-C: a server that does not answer is not waited for
        said = type(error).__name__
        last = Thread(target=lambda: tracker.fail(said), daemon=True)
        last.start()
        last.join(GRACE)
        raise


def work(settings: RunSettings, crew: Crew, tracker: Tracker) -> None:
    """Edit and record every case that has no record yet."""
    runner, directory = settings.runner, settings.directory
    with RecordLog(directory, runner.retry_failed) as log, Claims(directory) as claims:
        for repair in log.repairs:
            CONSOLE.print(f"[yellow]{escape(printable(repair))}", highlight=False)
        done = log.done_ids()
        _replay(settings, log, tracker)
        ids = list(crew.dataset.ids)
        shard = Shard.read(runner.shard)
        mine = shard.of(ids)
        notes = _notes(directory)
        with _progress() as progress:
            task = progress.add_task("editing", total=len(mine), completed=len(done & {*mine}))

            def record(chunk: Chunk, finished: Sequence[Done]) -> None:
                noted = [(replace(r, notes=(*r.notes, *notes)), p) for r, p in finished]
                log.append_all([r for r, _ in noted])
                if log.done_ids().issuperset(ids[chunk.start : chunk.stop]):
                    claims.release(chunk.start, chunk.stop)
                for one, pictures in noted:
                    tracker.log_case(one, pictures)
                progress.advance(task, len(noted))

            chunks = chunks_left(log, claims, ids, shard.places(len(ids)), runner.chunk_size)
            crew.run(_announced(chunks, claims), record)


def _announced(chunks: Iterator[Chunk | Waiting], claims: Claims) -> Chunks:
    """Say once who holds what is left when nothing could be done for some seconds."""
    idle_since, said = time.monotonic(), False
    for chunk in chunks:
        yield chunk
        if isinstance(chunk, Chunk):
            idle_since = time.monotonic()
        elif not said and time.monotonic() - idle_since > SAY_AFTER:
            holder = claims.holder(chunk.start, chunk.stop)
            CONSOLE.print(
                f"waiting for cases {chunk.start + 1} to {chunk.stop}, which {holder} works on; "
                "they are done here if it ends without them",
                highlight=False,
            )
            said = True


def _notes(directory: Path) -> tuple[str, ...]:
    """What every record of this session has to say."""
    origin = Origin.read(directory)
    differs = code_differs(origin) if origin else ""
    return (f"{LATER}: {differs}",) if differs else ()


def _replay(settings: RunSettings, log: RecordLog, tracker: Tracker) -> None:
    """Tell the tracker of the cases that an earlier session did."""
    done = log.done_ids()
    for record in log.records():
        if record.image is not None and record.case in done:
            tracker.log_case(record, _stored(settings.directory, record))


def _stored(directory: Path, record: Record) -> dict[str, Image.Image]:
    """The case's picture, unless the file is none."""
    try:
        return {"edited": Image.open(directory / str(record.image))}
    except OSError:
        return {}


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cases, left:"),
        TimeRemainingColumn(),
        console=CONSOLE,
    )
