"""A search's memory: Optuna's study in the search's folder, for several processes at once.

The journal `trials.jsonl` is appended to under a lock that ends with its process, and a line
that a killed process left incomplete is cut off before the next one is written. A process at
work on a trial holds a claim on its number (`batching.Claims`); a trial that is running but not
claimed was interrupted, and the next process continues it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from zerocon.config.search_space import Choices, Dimension, Search
from zerocon.core.checks import ConfigError
from zerocon.ledger.claims import Claims

try:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial, TrialState
except ImportError:
    raise ConfigError("a search needs Optuna: pip install 'zerocon[search]'") from None

JOURNAL = "trials.jsonl"
NAME = "search"  # Optuna could keep several in one journal
ERROR, RUN = "error", "run"  # attributes of a trial: why it failed; its run's directory

optuna.logging.set_verbosity(optuna.logging.WARNING)

WAYS = {"higher": StudyDirection.MAXIMIZE, "lower": StudyDirection.MINIMIZE}

State = Literal["done", "failed", "running"]
STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "done",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


@dataclass(frozen=True)
class Trial:
    """Some settings, tried."""

    number: int
    state: State
    settings: Mapping[str, str]  # as overrides give them
    error: str = ""
    run: str = ""  # the name of its run's directory, once that is done

    @property
    def overrides(self) -> list[str]:
        return [f"{key}={value}" for key, value in self.settings.items()]


class JournalLock:
    """For Optuna's journal, whose own locks outlive a process that was killed."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._file = -1

    def acquire(self) -> bool:
        self._file = os.open(self._journal, os.O_RDWR)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        _cut_torn_line(self._file)
        return True

    def release(self) -> None:
        os.close(self._file)


def _cut_torn_line(file: int) -> None:
    """Drop an incomplete last line: no other process is writing, so it won't be completed."""
    size = os.fstat(file).st_size
    whole = os.pread(file, size, 0).rfind(b"\n") + 1
    if whole < size:
        os.ftruncate(file, whole)


class Trials:
    """The trials of one search, old and new."""

    def __init__(self, folder: Path, search: Search) -> None:
        self._search = search
        self._turn = folder / "turn"
        self._claims = Claims(folder)
        journal = folder / JOURNAL
        lock: Any = JournalLock(journal)  # all that Optuna asks of one
        backend = JournalFileBackend(str(journal), lock)
        self._storage = JournalStorage(backend)
        self._study: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._claims.__exit__(None, None, None)

    def open(self, better: Callable[[], Sequence[str]], usual: Mapping[str, object]) -> None:
        """Go on; or begin, with the settings as they are without a search.

        `better` tells for each objective whether "higher" or "lower" is, and is asked once.
        """
        with self._alone():
            if optuna.get_all_study_names(self._storage):
                self._study = optuna.load_study(study_name=NAME, storage=self._storage)
            else:
                ways = [WAYS[one] for one in better()]
                self._study = optuna.create_study(
                    storage=self._storage, study_name=NAME, directions=ways
                )
            if not self._frozen():
                self._study.enqueue_trial(_held(self._search.space, usual))

    def all(self) -> list[Trial]:
        return [self._shown(t) for t in self._frozen() if t.state != TrialState.WAITING]

    def next(self, most: int) -> Trial | None:
        """What to try now: what was cut off, or something new while there are less than `most`."""
        with self._alone():
            frozen = self._frozen()
            begun = [t for t in frozen if t.state != TrialState.WAITING]
            for one in begun:
                if one.state == TrialState.RUNNING and self._claims.take(
                    one.number, one.number + 1
                ):
                    return self._settled(one)
            if len(begun) >= most:
                return None
            asked = self._sampled(len(begun))
            self._claims.take(asked, asked + 1)
            return self._settled(self._frozen()[asked])

    def done(self, trial: Trial, run: str, values: Sequence[float]) -> None:
        self._handle(self._frozen()[trial.number]).set_user_attr(RUN, run)
        self._study.tell(trial.number, list(values))
        self._claims.release(trial.number, trial.number + 1)

    def failed(self, trial: Trial, error: str) -> None:
        self._handle(self._frozen()[trial.number]).set_user_attr(ERROR, error)
        self._study.tell(trial.number, state=TrialState.FAIL)
        self._claims.release(trial.number, trial.number + 1)

    def front(self) -> list[Trial]:
        """The trials that no other one beats."""
        return [self._shown(t) for t in self._study.best_trials]

    def _frozen(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _sampled(self, number: int) -> int:
        self._seed(number)
        return self._study.ask().number

    def _settled(self, frozen: FrozenTrial) -> Trial:
        """With a value for each setting; what it has already stays."""
        self._seed(frozen.number)
        handle = self._handle(frozen)
        for key, dimension in self._search.space.items():
            _suggest(handle, key, dimension)
        return self._shown(self._frozen()[frozen.number])

    def _seed(self, number: int) -> None:
        """A trial's draws depend on its number, not on how often the search was begun again."""
        key = f"{self._search.seed}/{number}".encode()
        seed = int.from_bytes(hashlib.sha256(key).digest()[:4], "big")
        self._study.sampler = optuna.samplers.TPESampler(seed=seed)

    def _handle(self, frozen: FrozenTrial) -> optuna.Trial:
        return optuna.Trial(self._study, frozen._trial_id)  # noqa: SLF001 - there is no other way

    def _shown(self, frozen: FrozenTrial) -> Trial:
        settings = {
            key: dimension.spelt(frozen.params[key])
            for key, dimension in self._search.space.items()
            if key in frozen.params
        }
        said = frozen.user_attrs
        error, run = str(said.get(ERROR, "")), str(said.get(RUN, ""))
        return Trial(frozen.number, STATES[frozen.state], settings, error, run)

    @contextmanager
    def _alone(self) -> Generator[None]:
        """One process at a time decides what comes next."""
        with self._turn.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _held(space: Mapping[str, Dimension], usual: Mapping[str, object]) -> dict[str, Any]:
    """The values that the search could come upon itself, as Optuna takes them."""
    held = {key: usual[key] for key in space if key in usual and space[key].holds(usual[key])}
    return {k: space[k].spelt(v) if isinstance(space[k], Choices) else v for k, v in held.items()}


def _suggest(trial: optuna.Trial, key: str, dimension: Dimension) -> None:
    if isinstance(dimension, Choices):
        trial.suggest_categorical(key, dimension.values)
    elif dimension.whole:
        low, high, step = int(dimension.low), int(dimension.high), int(dimension.step or 1)
        trial.suggest_int(key, low, high, step=step, log=dimension.log)
    else:
        trial.suggest_float(
            key, dimension.low, dimension.high, step=dimension.step, log=dimension.log
        )
