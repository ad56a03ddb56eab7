"""The interface of trackers. No run depends on its tracker; the records are authoritative."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from PIL import Image

from zerocon.core.checks import in_range
from zerocon.core.records import Record

log = logging.getLogger(__name__)

# Those of "source", "edited", "truth" and "mask" that exist, and "map source: word" of words.
Images = Mapping[str, Image.Image]
Curves = Mapping[str, Sequence[float]]  # a loss's name -> its value at each step, nan for none
MAP = "map "  # how the names of attention maps begin
ARROWS = {"higher": "↑", "lower": "↓"}


class Tracker(Protocol):
    """Receives a run's events in this order: start, each case, then finish or fail.

    It may also have `log_curves(case, curves)`, for the losses of a case over the steps, and
    `where()`, which says in a line where the run can be seen.
    """

    def start(self, config: Mapping[str, Any], name: str, group: str) -> None: ...

    def log_case(self, record: Record, images: Images) -> None: ...

    def finish(self, summary: Mapping[str, Any]) -> None:
        """`summary["metrics"]` has each column's statistics, `summary["columns"]` its unit and
        which way is better."""
        ...

    def fail(self, error: str) -> None: ...


class NoTracker:
    """Does nothing."""

    def start(self, config: Mapping[str, Any], name: str, group: str) -> None:
        pass

    def log_case(self, record: Record, images: Images) -> None:
        pass

    def finish(self, summary: Mapping[str, Any]) -> None:
        pass

    def fail(self, error: str) -> None:
        pass


class Guarded:
    """Wraps a tracker: its first error is logged as a warning, then it is no longer called."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker: Tracker = tracker

    def start(self, config: Mapping[str, Any], name: str, group: str) -> None:
        self._try(lambda: self._tracker.start(config, name, group))

    def log_case(self, record: Record, images: Images) -> None:
        self._try(lambda: self._tracker.log_case(record, images))

    def log_curves(self, case: str, curves: Curves) -> None:
        log_curves = getattr(self._tracker, "log_curves", None)
        if curves and log_curves is not None:
            self._try(lambda: log_curves(case, curves))

    def where(self) -> str:
        """Where the run can be seen; empty if the tracker does not say."""
        said: list[str] = []
        where = getattr(self._tracker, "where", None)
        if where is not None:
            self._try(lambda: said.append(str(where())))
        return "".join(said)

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._try(lambda: self._tracker.finish(summary))

    def fail(self, error: str) -> None:
        self._try(lambda: self._tracker.fail(error))

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 (the run continues in any case)
            name = type(self._tracker).__name__
            reason = (str(error) or type(error).__name__).splitlines()[0]
            log.warning("%s stopped; the run continues without it: %s", name, reason)
            self._tracker = NoTracker()


def check_counts(settings: Mapping[str, Any]) -> None:
    """Check how many cases a tracker is to show in detail."""
    for name in ("images", "curves", "maps"):
        if settings.get(name) is not None:
            in_range(f"tracker.{name}", settings[name], 0)


def label(column: Mapping[str, Any]) -> str:
    """A column's name with its direction and unit: `lpips_bg ↓ (1e-3)`."""
    parts = [str(column["name"]), ARROWS.get(str(column.get("better")), "")]
    unit = column.get("unit")
    return " ".join(part for part in [*parts, f"({unit})" if unit else ""] if part)


class TrackerError(Exception):
    """The tracker can't be used with these settings. The message says what to do."""
