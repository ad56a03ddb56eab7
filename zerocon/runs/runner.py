"""One run: its cases, in chunks, through a crew of workers, into records.

Running it again continues it. A case that fails becomes a failed record and the run goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

from PIL import Image
from rich.console import Console
from rich.markup import escape

from zerocon.config.settings import RunSettings
from zerocon.core.checks import ConfigError
from zerocon.core.interrupt import raise_again
from zerocon.core.records import Record, RecordError
from zerocon.core.shards import Shard
from zerocon.core.text import printable
from zerocon.ledger.claims import Chunk, Claims, Waiting, chunks_left
from zerocon.ledger.code import code_digests
from zerocon.ledger.identity import Identity, InputsChangedError
from zerocon.ledger.locks import SAY_AFTER
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import RecordLog
from zerocon.ledger.run_directory import RunDirectory
from zerocon.runs.costs import cost_in_words, note_session
from zerocon.runs.crews import start_crew
from zerocon.runs.inputs import check, check_finished, code_difference, inputs_of
from zerocon.runs.progress import LOADING, Display, duration
from zerocon.runs.progress import console as progress
from zerocon.runs.results import (
    LATER,
    begin,
    finish,
    follow_code_policy,
    is_complete,
    must_begin_anew,
    report,
    set_aside,
    with_inputs,
)
from zerocon.runs.reuse import same_run, take_records
from zerocon.runs.shown import Shown
from zerocon.runs.tally import ALONE, Place, Tally, case_in_words
from zerocon.runs.work_queue import GRACE, Chunks, Crew
from zerocon.runs.worker import Done
from zerocon.trackers.base import Guarded, Tracker

CONSOLE = Console()
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    directory: Path
    done: int
    failed: int


@contextmanager
def saying_how_far(directory: Path) -> Generator[None]:
    """On Ctrl-C, end the run with a message that says how many cases are recorded."""
    raise_again()
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how_far(directory)) from None


def how_far(directory: Path) -> str:
    """What to say when a run is interrupted; the command adds that it continues when repeated."""
    try:
        status = RunDirectory(directory).status()
    except (ConfigError, RecordError, OSError):
        status = None
    if status is None or not status.cases:
        return "interrupted before the first case"
    return f"interrupted: {status.recorded} of {status.cases} cases are recorded in {directory}"


def execute(settings: RunSettings, place: Place = ALONE) -> Outcome:
    """Do the rest of the run (or of its shard), then print and write the results.

    `place`: which it is of several runs.
    """
    with saying_how_far(settings.directory):
        return _executed(settings, place)


def _executed(settings: RunSettings, place: Place) -> Outcome:
    runner, config = settings.runner, settings.config
    run = RunDirectory(settings.directory)
    if must_begin_anew(run, config, runner.on_code_change):
        set_aside(run)
        run = RunDirectory(settings.directory)
    follow_code_policy(run, config, runner.on_code_change)
    if not is_complete(run, retry_failed=runner.retry_failed, shard=runner.shard):
        _go_on(settings, run, place)
    unchecked = check_finished(run, config, settings.dataset, runner.on_code_change)
    whole = is_complete(run, retry_failed=False)
    if not whole:
        said = f"{run}: {run.status().words()}"
        CONSOLE.print(printable(said), highlight=False, markup=False)
    told = report(
        run,
        CONSOLE,
        per_type=runner.per_type,
        whole=whole,
        unchecked=unchecked,
        code=code_digests(config),
    )
    return Outcome(run.path, *told)


def _go_on(settings: RunSettings, run: RunDirectory, place: Place) -> None:
    """Do the rest of the run if its inputs have not changed."""
    inputs = inputs_of(settings.config, settings.dataset)
    _check(settings, run, inputs)
    with _mirrored(settings) as tracker, _at_work(settings, run) as crew:
        _begin(settings, run, with_inputs(crew.origin, inputs), inputs)
        _check(settings, run, inputs)  # another shard may have begun it meanwhile
        work(settings, run, crew, tracker, place)
        _check_again(settings, run)
        finish(settings, run, crew.dataset, tracker)


def _check(settings: RunSettings, run: RunDirectory, inputs: Identity) -> None:
    if run.begun:
        check(run, inputs, settings.runner.on_code_change)


def _check_again(settings: RunSettings, run: RunDirectory) -> None:
    """Refuse the results if inputs changed while they were computed."""
    try:
        _check(settings, run, inputs_of(settings.config, settings.dataset))
    except InputsChangedError as error:
        run.mark_mixed(str(error))
        raise


def _begin(settings: RunSettings, run: RunDirectory, origin: Origin, inputs: Identity) -> None:
    other = same_run(run, origin)
    if other is None:
        begin(run, origin, inputs, settings.config)
        return
    provenance = origin.provenance | {"records_from": other.name}
    begin(run, replace(origin, provenance=provenance), inputs, settings.config)
    take_records(other, run)
    said = f"{run}: the same settings and inputs as {other.name}, so its records are taken"
    CONSOLE.print(printable(said), markup=False)


@contextmanager
def _at_work(settings: RunSettings, run: RunDirectory) -> Generator[Crew]:
    started = datetime.now(UTC)
    with Display(lambda: LOADING):
        crew = start_crew(settings)
    log.info("models loaded in %s", duration((datetime.now(UTC) - started).total_seconds()))
    try:
        yield crew
    finally:
        spent = crew.spent()
        crew.close()
        for one in spent:
            note_session(run, started, one)
            log.info("%s", cost_in_words(one))


@contextmanager
def _mirrored(settings: RunSettings) -> Generator[Guarded]:
    """Open the tracker for the whole session, and report errors such as a failed model load."""
    tracker = Guarded(settings.tracker())
    tracker.start(settings.config, settings.directory.name, settings.name)
    where = tracker.where()
    if where:
        progress().print(printable(where), markup=False, soft_wrap=True)
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


def work(
    settings: RunSettings, run: RunDirectory, crew: Crew, tracker: Tracker, place: Place = ALONE
) -> None:
    """Edit and record every case that has no record yet."""
    runner = settings.runner
    with run.log(retry_failed=runner.retry_failed) as records, run.claims() as claims:
        for repair in records.repairs:
            CONSOLE.print(f"[yellow]{escape(printable(repair))}", highlight=False)
        done = records.done_ids()
        _replay(run, records, tracker)
        ids = list(crew.dataset.ids)
        shard = Shard.read(runner.shard)
        mine = shard.of(ids)
        notes = _notes(settings, run)
        tally = Tally(settings, crew, len(mine), len(done & {*mine}), place)

        def record(chunk: Chunk, finished: Sequence[Done]) -> None:
            noted = [(replace(r, notes=(*r.notes, *notes)), p) for r, p in finished]
            records.append_all([r for r, _ in noted])
            if records.done_ids().issuperset(ids[chunk.start : chunk.stop]):
                claims.release(chunk.start, chunk.stop)
            for one, pictures in noted:
                tracker.log_case(one, pictures)
                if isinstance(tracker, Guarded) and isinstance(pictures, Shown):
                    tracker.log_curves(one.case, pictures.curves)
                log.info("%s", printable(case_in_words(one)))
            tally.recorded += len(noted)

        chunks = chunks_left(records, claims, ids, shard.places(len(ids)), runner.chunk_size)
        progress().print(printable(tally.headline()), markup=False, soft_wrap=True)
        with Display(tally.far):
            crew.run(announced(chunks, claims, CONSOLE), record)


def announced(chunks: Iterator[Chunk | Waiting], claims: Claims, console: Console) -> Chunks:
    """After some seconds without work, say once which process holds the remaining cases."""
    idle_since, said = time.monotonic(), False
    for chunk in chunks:
        yield chunk
        if isinstance(chunk, Chunk):
            idle_since = time.monotonic()
        elif not said and time.monotonic() - idle_since > SAY_AFTER:
            holder = claims.holder(chunk.start, chunk.stop)
            console.print(
                f"waiting for cases {chunk.start + 1} to {chunk.stop}, which {holder} works on; "
                "they are done here if it ends without them",
                highlight=False,
            )
            said = True


def _notes(settings: RunSettings, run: RunDirectory) -> tuple[str, ...]:
    """The notes to add to every new record."""
    differs = code_difference(run, code_digests(settings.config))
    return (f"{LATER}: {differs}",) if differs else ()


def _replay(run: RunDirectory, records: RecordLog, tracker: Tracker) -> None:
    """Send the tracker the cases that an earlier session did."""
    done = records.done_ids()
    for record in records.records():
        if record.image is not None and record.case in done:
            tracker.log_case(record, _stored(run, record))


def _stored(run: RunDirectory, record: Record) -> dict[str, Image.Image]:
    """The case's picture, if its file can be read."""
    try:
        return {"edited": run.picture(record)}
    except OSError:
        return {}
