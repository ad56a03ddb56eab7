"""Compare the current inputs of a run with those that its directory was made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zerocon.core.cases import Dataset, DatasetError, DatasetMissingError
from zerocon.core.size import Size
from zerocon.ledger.identity import (
    PACKAGE,
    Identity,
    InputsChangedError,
    changed_own_code,
    changes,
    digests_of_settings,
    identity_of,
    refusal,
)
from zerocon.ledger.origin import git_state
from zerocon.ledger.run_directory import RunDirectory

LISTED_AT = Size.square(64)  # a dataset's content is the same at any size
REMEDY = (
    "Remove the directory, or give the run another `name`; `zerocon table {directory}` shows "
    "the numbers of then."
)
OWN_CODE_REMEDY = (
    "runner.on_code_change=rerun does it anew and keeps the old directory aside, "
    "runner.on_code_change=keep goes on as if the code were the same."
)
UNRECORDED = "it was made before a run's inputs were recorded"


def inputs_of(config: Mapping[str, Any], make: Callable[..., Dataset]) -> Identity:
    """What the numbers of this config depend on; DatasetError if its dataset can't be read."""
    return identity_of(config, make(pixels=LISTED_AT))


def check_finished(
    run: RunDirectory,
    config: Mapping[str, Any],
    make: Callable[..., Dataset],
    on_code_change: str = "warn",
) -> Sequence[str]:
    """Refuse results whose inputs have changed; return what could not be checked, in words.

    `make` makes the config's dataset.
    """
    if run.inputs is None and not run.origin.mixed:
        return [UNRECORDED]
    try:
        now = inputs_of(config, make)
    except DatasetMissingError as error:
        now = identity_of(config, str(error))
    except DatasetError as error:
        raise InputsChangedError(refusal(run, [str(error)], "", _remedy(run))) from error
    check(run, now, on_code_change)
    return now.unchecked


def check(run: RunDirectory, now: Identity, on_code_change: str = "warn") -> None:
    """Refuse to continue a run whose inputs have changed."""
    if run.origin.mixed:
        raise InputsChangedError(
            f"the inputs of {run} changed while it was made: {run.origin.mixed} "
            "Its numbers are not of one state of them: remove the directory."
        )
    if run.inputs is None:
        raise InputsChangedError(_not_recorded(run))
    changed = [*changes(run.inputs, now), *_changed_config(run)]
    if changed:
        raise InputsChangedError(refusal(run, changed, now.dataset, _remedy(run)))
    own = changed_own_code(run.inputs, now)
    if own and on_code_change != "keep":
        raise InputsChangedError(refusal(run, own, "", OWN_CODE_REMEDY))


def _changed_config(run: RunDirectory) -> list[str]:
    """Describe the change if the stored config is not the one that the run began with."""
    assert run.inputs is not None
    if not run.has_config or digests_of_settings(run.config) == run.inputs.settings:
        return []
    return [f"the settings in {run}/config.yaml are not those it was begun with"]


def _remedy(run: RunDirectory) -> str:
    return REMEDY.format(directory=run)


def _not_recorded(run: RunDirectory) -> str:
    return (
        f"{run} can't be continued: {UNRECORDED}, so nothing tells whether they are the same. "
        f"{_remedy(run)}"
    )


def code_difference(run: RunDirectory, now: Mapping[str, str]) -> str:
    """Describe the current code and the run's if they differ; `now`: the current code's digests."""
    before = run.inputs.code if run.inputs else {PACKAGE: _recorded(run)}
    if not before.get(PACKAGE) or before == {name: now[name] for name in now if name in before}:
        return ""
    return _described(run, before, now)


def _recorded(run: RunDirectory) -> str:
    return str(run.origin.provenance.get("code") or "")


def _described(run: RunDirectory, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    own = [name for name in before if name != PACKAGE and before[name] != now.get(name)]
    if own:
        return ", ".join(own)
    revision = git_state()["revision"] or "no revision"
    began = (run.origin.provenance.get("git") or {}).get("revision") or "no revision"
    digests = now[PACKAGE][:8], before[PACKAGE][:8]
    return f"{revision[:10]}, digest {digests[0]}, not {began[:10]}, digest {digests[1]}"
