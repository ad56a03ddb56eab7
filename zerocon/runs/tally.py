"""What one run says of its progress: a headline at the start, then how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zerocon.backbones.base import Backbone
from zerocon.config.settings import RunSettings
from zerocon.core.cases import DatasetError
from zerocon.core.naming import digest
from zerocon.core.records import Record
from zerocon.core.shards import Shard
from zerocon.core.size import Size
from zerocon.core.text import counted
from zerocon.core.threads import Choice
from zerocon.ledger.run_directory import RunDirectory
from zerocon.runs.costs import Costs
from zerocon.runs.expected import expected
from zerocon.runs.progress import WORDS, Far, far
from zerocon.runs.threads import threads_of, workers_of
from zerocon.runs.work_queue import Crew

LISTED_AT = Size.square(64)  # a list of cases does not depend on it
FIRST_METRICS = 3  # of a case, in its line of `-v`


@dataclass(frozen=True)
class Place:
    """Which run of several this is; `later`: the rows of those after it, None if alike."""

    number: int = 1
    count: int = 1
    later: float | None = None

    def words(self) -> str:
        return f"run {self.number} of {self.count}, " if self.count > 1 else ""

    def rows_later(self, of_this: float) -> float:
        """Rows of the runs that follow, if this one takes `of_this`."""
        return (self.count - self.number) * of_this if self.later is None else self.later


ALONE = Place()


@dataclass(frozen=True)
class Left:
    """What a run has left to do."""

    cases: int
    rows: float  # through the network, about


def left_of(runs: Sequence[RunSettings]) -> list[Left]:
    """What each run has left; no picture is read.

    Nothing if its dataset can't be listed: a finished run needs none, and another says so itself.
    """
    listed: dict[str, Sequence[str]] = {}
    found: list[Left] = []
    for run in runs:
        which = digest(run.config["dataset"])
        if which not in listed:
            try:
                listed[which] = run.dataset(pixels=LISTED_AT).ids
            except DatasetError:
                listed[which] = ()
        ids = Shard.read(run.runner.shard).of(listed[which])
        done = RunDirectory(run.directory).done_cases(retry_failed=run.runner.retry_failed)
        cases = len(set(ids) - done)
        found.append(Left(cases, cases * sum(expected(run).values())))
    return found


def places_of(left: Sequence[Left]) -> list[Place]:
    """Which of the runs each is, and the rows of those after it."""
    rows = [one.rows for one in left]
    return [Place(i + 1, len(left), sum(rows[i + 1 :])) for i in range(len(left))]


def summary_of(left: Sequence[Left]) -> str:
    """What a set of runs has before it, in one line."""
    finished = sum(not one.cases for one in left)
    cases, rows = (sum(getattr(one, name) for one in left) for name in ("cases", "rows"))
    return (
        f"{counted(len(left), 'run')}, {finished} of them finished; "
        f"{counted(cases, 'case')} to do, about {rows:,.0f} evaluations"
    )


class Tally:
    """Counts a run's cases and evaluations while a crew works."""

    def __init__(
        self, settings: RunSettings, crew: Crew, cases: int, done: int, place: Place = ALONE
    ) -> None:
        self._settings, self._crew, self._place = settings, crew, place
        self._cases, self._before, self.recorded = cases, done, 0
        self._expected = expected(settings)

    def far(self) -> Far:
        recorded = self._before + self.recorded
        now = far(
            self._crew.working(),
            self._expected,
            recorded,
            self._cases,
            max(0, self._cases - recorded),
            lambda per_case: self._place.rows_later(per_case * self._cases),
        )
        return replace(now, said=f"{self._place.words()}{now.said}")

    def headline(self) -> str:
        """One line: the model and where it computes, and what there is to do."""
        settings, provenance = self._settings, self._crew.origin.provenance
        place = self._place.words()
        model = self._crew.origin.backbone["name"]
        device, dtype = (str(provenance.get(what, "")) for what in ("device", "dtype"))
        left = self._cases - self._before
        done = f", {self._before} done before" if self._before else ""
        parts = [
            f"{place}{settings.name}: {model} on {device} in {dtype}",
            self._workers(),
            self._batch(),
            f"{counted(left, 'case')} to do{done}",
            f"results in {settings.directory}",
        ]
        return "; ".join(part for part in parts if part)

    def _workers(self) -> str:
        runner = self._settings.runner
        if runner.executor == "ray":
            return f"{workers_of(runner)} Ray actors"
        threads = threads_of(self._settings).words()
        if runner.executor == "processes":
            return f"{workers_of(runner)} processes, each with {threads}"
        return threads

    def _batch(self) -> str:
        runner = self._settings.runner
        if runner.deterministic:
            return "each case alone"
        return f"batches of {runner.batch_size}"


def case_in_words(record: Record) -> str:
    """A finished case in one line: its first numbers, or why it failed."""
    if not record.ok:
        return f"{record.case} failed: {record.error}"
    shown = list(record.metrics.items())[:FIRST_METRICS]
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in shown)
    seconds = f"{record.seconds:.1f} s, " if record.seconds else ""
    return f"{record.case}: {seconds}{numbers}"


def edit_headline(settings: RunSettings, backbone: Backbone, threads: Choice, out: Path) -> str:
    """One line before a single edit: the model and where it computes, and what is done."""
    dtype = str(backbone.dtype).removeprefix("torch.")
    method = settings.method
    return (
        f"{backbone.name} on {backbone.device} in {dtype}; {threads.words()}; "
        f"{type(method).__name__}, {method.steps} steps; result in {out}"
    )


def one_edit(settings: RunSettings, costs: Costs, backbone: Backbone) -> Far:
    """How far a single edit is."""
    now = far([costs.working(backbone)], expected(settings), 0, 1, 1)
    return replace(now, said=WORDS.get(costs.stage, "preparing"))
