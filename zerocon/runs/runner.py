"""One run: its cases, in chunks, through a crew of workers, into records.

Running it again continues it. A case that fails becomes a failed record and the run goes on.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from zerocon.config.settings import RunSettings
from zerocon.core.shards import Shard
from zerocon.core.text import printable
from zerocon.ledger.claims import Chunk, Claims, chunks_left
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import Record, RecordLog
from zerocon.ledger.status import status_of
from zerocon.runs.costs import note_session
from zerocon.runs.crews import Crew, hire
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


def execute(settings: RunSettings) -> Outcome:
    """Do what is left of the run (or of this shard of it), then print and write its results."""
    runner, directory = settings.runner, settings.directory
    heed_code(directory, runner.on_code_change)
    if not is_complete(directory, retry_failed=runner.retry_failed, shard=runner.shard):
        with _mirrored(settings) as tracker, _hired(settings) as crew:
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
def _hired(settings: RunSettings) -> Generator[Crew]:
    started = datetime.now(UTC)
    crew = hire(settings)
    try:
        yield crew
    finally:
        spent = crew.spent()
        crew.dismiss()
        for one in spent:
            note_session(settings.directory, started, one)


@contextmanager
def _mirrored(settings: RunSettings) -> Generator[Tracker]:
    """The tracker is told of all of it, also of a bad end, such as models that don't load."""
    tracker = Guarded(settings.tracker())
    tracker.start(settings.config, settings.directory.name, settings.name)
    try:
        yield tracker
    except BaseException as error:
        tracker.fail(f"{type(error).__name__}: {error}")
        raise


def work(settings: RunSettings, crew: Crew, tracker: Tracker) -> None:
    """Edit and record every case that has no record yet."""
    runner, directory = settings.runner, settings.directory
    with RecordLog(directory, runner.retry_failed) as log, Claims(directory) as claims:
        for repair in log.repairs:
            CONSOLE.print(f"[yellow]{escape(printable(repair))}")
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
                claims.release(chunk.start, chunk.stop)
                for one, pictures in noted:
                    tracker.log_case(one, pictures)
                progress.advance(task, len(noted))

            places = shard.places(len(ids))
            crew.run(chunks_left(log, claims, ids, places, runner.chunk_size), record)


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
    return {"edited": Image.open(directory / str(record.image))}


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cases, left:"),
        TimeRemainingColumn(),
        console=CONSOLE,
    )
