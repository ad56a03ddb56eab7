"""What `run.py` does around Hydra: check every override first, run, say how it went."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from rich.console import Console

from zerocon.backbones.base import BackboneError
from zerocon.config.settings import (
    build,
    compose_config,
    directory_of,
    plain,
    runner_settings,
    settings_of,
)
from zerocon.core.cases import DatasetError
from zerocon.core.checks import ConfigError
from zerocon.core.quiet import quiet, quiet_models
from zerocon.core.text import printable, printable_lines
from zerocon.ledger.code import code_digests
from zerocon.ledger.run_directory import RunDirectory
from zerocon.runs.inputs import check_finished
from zerocon.runs.results import is_complete, must_begin_anew, report

ONLY_TELLS = ("--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i")
MOST_CHECKED = 64  # combinations of a sweep that are checked before it starts


def preflight(arguments: Sequence[str]) -> int | None:
    """Compose every run that the command asks for; exit with 2 and plain words if one can't be.

    When all of them are finished they are reported here, without a second look by Hydra; the
    exit status then, else nothing.
    """
    quiet()
    if any(a in ONLY_TELLS for a in arguments):
        return None
    try:
        runs = _checked(_overrides(arguments))
        if runs is None or not _is_plain(arguments):
            return None
        return max(_told(overrides, config) for overrides, config in runs)
    except ConfigError as error:
        sys.stderr.write(f"run.py: {printable_lines(error)}\n")
        sys.exit(2)


def _checked(overrides: Sequence[str]) -> list[tuple[Sequence[str], dict[str, Any]]] | None:
    """The configs of the command's runs if all are finished; the first others are checked."""
    finished: list[tuple[Sequence[str], dict[str, Any]]] = []
    every = True
    for number, combination in enumerate(combinations(overrides)):
        if number >= MOST_CHECKED and not every:
            break
        config = plain(compose_config(combination))
        # A run that is complete was checked when it began; building it again would take time.
        if _is_complete(config):
            finished.append((combination, config))
        else:
            settings_of(config)
            every = False
    return finished if every else None


def _is_plain(arguments: Sequence[str]) -> bool:
    """Nothing is said to Hydra itself but that this is a sweep."""
    flags = {a for a in arguments if a.startswith("-")} - {"-m", "--multirun"}
    return not flags and not any(a.lstrip("+~").startswith("hydra") for a in arguments)


def _told(overrides: Sequence[str], config: dict[str, Any]) -> int:
    """Report a finished run; its exit status."""
    console = Console()
    if overrides:
        console.print(printable(" ".join(overrides)), highlight=False, soft_wrap=True, markup=False)
    return 1 if _reported(config, console) else 0


def exit_status(arguments: Sequence[str], here: Sequence[int]) -> int:
    """The worst of the runs'; those that a launcher did elsewhere are known by their records."""
    launched = any(a in ("-m", "--multirun") for a in arguments) and not here
    if not launched or any(a in ONLY_TELLS for a in arguments):
        return max(here, default=0)
    return max(_elsewhere(compose_config(c)) for c in combinations(_overrides(arguments)))


def _elsewhere(cfg: DictConfig) -> int:
    """Say how far a run is that another process did; its exit status."""
    config = plain(cfg)
    run, shard = RunDirectory(directory_of(config)), runner_settings(config).shard
    status = run.status()
    said = status.words() if status.cases else "it did not begin; its job's output says why"
    Console().print(printable(f"{run}: {said}"), highlight=False, soft_wrap=True, markup=False)
    if not is_complete(run, retry_failed=False, shard=shard):
        return 2
    return 1 if status.failed else 0


def _overrides(arguments: Sequence[str]) -> list[str]:
    return [a for a in arguments if not a.startswith("-")]


def _is_complete(config: dict[str, Any]) -> bool:
    runner, run = runner_settings(config), RunDirectory(directory_of(config))
    if must_begin_anew(run, config, runner.on_code_change):
        return False
    return is_complete(run, retry_failed=runner.retry_failed, shard=runner.shard)


def combinations(overrides: Sequence[str]) -> itertools.product[tuple[str, ...]]:
    """Every run of a sweep as its own overrides; one for a command that sweeps nothing."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(f"an override can't be read: {error}") from error
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [str(o.input_line)]
        for o in parsed
    ]
    return itertools.product(*choices)


def run_one(cfg: DictConfig) -> int:
    """Execute one run; the exit status: 0 all well, 1 a case failed, 2 it could not start."""
    quiet()
    try:
        return 1 if _failures(cfg) else 0
    except (ConfigError, BackboneError, DatasetError) as error:
        sys.stderr.write(f"run.py: {printable_lines(error)}\n")
        return 2


def _failures(cfg: DictConfig) -> int:
    """Do the run, or what is left of it, and report; how many cases failed."""
    config = plain(cfg)
    if _is_complete(config):
        return _reported(config, Console())
    # Imported late: all that a finished run needs is its records.
    from zerocon.runs.runner import execute

    quiet_models()
    return execute(settings_of(config)).failed


def _reported(config: dict[str, Any], console: Console) -> int:
    """Print a finished run's table, if its inputs are still the same; how many cases failed."""
    runner, run = runner_settings(config), RunDirectory(directory_of(config))
    make = build(config, "dataset", later=("side",))
    unchecked = check_finished(run, config, make, runner.on_code_change)
    code = code_digests(config)
    return report(run, console, per_type=runner.per_type, unchecked=unchecked, code=code)[1]
