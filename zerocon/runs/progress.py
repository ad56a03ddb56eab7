"""Say how far a command is: a bar on a terminal, elsewhere a plain line every half minute.

Progress is counted in rows through the network, forward and backward. A thread looks at the
counters that backbones keep anyway, so that the step loop does nothing for it and a GPU is
never waited for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import parent_process
from threading import Event, Thread
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from zerocon.core.text import printable

EVERY = 30.0  # seconds between two plain lines
SOON = 3.0  # seconds to the first one
REFRESH = 0.25  # seconds between two looks at the counters for the bar
WORDS = {"inversion": "inverting", "editing": "editing", "scoring": "scoring"}


def console() -> Console:
    """Where progress is shown: stderr, so that a command's results alone are in its output."""
    return Console(stderr=True, highlight=False)


def loading(what: str) -> None:
    """The first line of a command, before PyTorch is imported: that alone takes seconds."""
    if "torch" not in sys.modules:
        said = printable(f"{what}; loading PyTorch, then the models")
        console().print(said, markup=False, soft_wrap=True)


@dataclass(frozen=True)
class Far:
    """How far it is. `done` and `total` are network evaluations, or other units of work."""

    done: float
    total: float
    said: str
    later: float = 0.0  # of the work that follows, beyond `total`
    unit: str = "evaluations"


@dataclass(frozen=True)
class Working:
    """What a worker is at: one batch's stage, and its counts so far."""

    stage: str = ""  # of STAGES, or scoring; empty between them
    cases: int = 0  # in its batch
    batch: int = 0  # rows through the network for this batch
    rows: int = 0  # in all batches
    per_case: Mapping[str, float] = field(default_factory=dict[str, float])  # last seen, by stage


LOADING = Far(0, 0, "loading the models")


def far(
    workers: Sequence[Working],
    expected: Mapping[str, float],
    recorded: int,
    cases: int,
    left: int,
    later: Callable[[float], float] = lambda _: 0.0,
) -> Far:
    """Of a run: `expected` rows per case by stage, until a batch has shown how many there are.

    `recorded` of `cases` are recorded, and `left` are to be edited here. `later`: the rows of
    the runs that follow, given those of a case.
    """
    seen = {stage: rows for one in workers for stage, rows in one.per_case.items()}
    per_case = sum({**expected, **seen}.values())
    at_work = sum(one.cases for one in workers)
    unfinished = sum(
        max(0.0, one.cases * per_case - one.batch) for one in workers if one.stage != "scoring"
    )
    done = float(sum(one.rows for one in workers))
    total = done + unfinished + max(0, left - at_work) * per_case
    stages = [WORDS.get(one.stage, one.stage) for one in workers if one.stage]
    stage = f", {' and '.join(dict.fromkeys(stages))}" if stages else ""
    return Far(done, total, f"{recorded} of {cases} cases{stage}", later(per_case))


class Display:
    """Shows what `look` says, until the block ends."""

    def __init__(self, look: Callable[[], Far], to: Console | None = None) -> None:
        self._look, self._console = look, to or console()
        self._over = Event()
        self._thread = Thread(target=self._show, daemon=True)
        self._clock = Clock()

    def __enter__(self) -> Self:
        self._clock.begin(self._look())
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(1.0)

    def _show(self) -> None:
        # Workers of a launcher share a terminal, where only one bar could be drawn.
        if self._console.is_terminal and parent_process() is None:
            self._as_bar()
        else:
            self._as_lines()

    def _as_bar(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}")
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task("", total=None, left="")
            while not self._over.wait(REFRESH):
                self._update(bar, task)

    def _update(self, bar: Progress, task: TaskID) -> None:
        now = self._look()
        left = self._clock.words(now)
        total = now.total or None
        bar.update(task, description=now.said, completed=now.done, total=total, left=left)

    def _as_lines(self) -> None:
        wait = SOON
        while not self._over.wait(wait):
            now = self._look()
            parts = [now.said, amount(now), self._clock.words(now)]
            said = "; ".join(part for part in parts if part)
            self._console.print(printable(said), markup=False, soft_wrap=True)
            wait = EVERY


def amount(now: Far) -> str:
    """`412 of about 2,740 evaluations`, once there are some."""
    if not now.done:
        return ""
    share = round(100 * now.done / now.total)
    return f"{now.done:,.0f} of about {now.total:,.0f} {now.unit} ({share} %)"


class Clock:
    """Estimates the time left from the pace so far."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._before = 0.0  # done before that

    def begin(self, now: Far) -> None:
        self._began, self._before = time.monotonic(), now.done

    def words(self, now: Far) -> str:
        """`about 1 min 20 s left`, from the first evaluation on."""
        done = now.done - self._before
        if done <= 0:
            return ""
        pace = (time.monotonic() - self._began) / done
        left = f"about {duration((now.total - now.done) * pace)} left"
        if now.later:
            whole = (now.total - now.done + now.later) * pace
            return f"{left}, {duration(whole)} for all runs"
        return left


def duration(seconds: float) -> str:
    """`45 s`, `1 min 20 s` or `2 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
