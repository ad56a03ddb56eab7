"""The interface of trackers. No run depends on its tracker; the records are authoritative."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from PIL import Image

from zerocon.core.records import Record

log = logging.getLogger(__name__)

Images = Mapping[str, Image.Image]  # those of "source", "edited" and "truth" that exist


class Tracker(Protocol):
    """Receives a run's events in this order: start, each case, then finish or fail."""

    def start(self, config: Mapping[str, Any], name: str, group: str) -> None: ...

    def log_case(self, record: Record, images: Images) -> None: ...

    def finish(self, summary: Mapping[str, Any]) -> None: ...

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


class TrackerError(Exception):
    """The tracker can't be used with these settings. The message says what to do."""
