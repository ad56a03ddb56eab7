"""`zerocon run`, and equally `python run.py`: one run, or a sweep.

Wraps Hydra: all runs of the command are composed and checked before the first one starts, and
finished runs are reported without calling Hydra.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerocon import __version__
from zerocon.commands.words import status_of_error
from zerocon.core.checks import ConfigError
from zerocon.core.text import printable

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

MOST_CHECKED = 64  # runs of a sweep checked before it starts


def add(commands: Any) -> None:
    """Add the command's help; `zerocon.cli` passes its arguments to `main` unparsed."""
    commands.add_parser("run", help="do one run, or a sweep; as python run.py", add_help=False)


def main(arguments: Sequence[str], program: str) -> int:
    """Run the command line `arguments` and return the exit status."""
    ours, rest = _own_options(arguments)
    from zerocon.core.quiet import tell_more
    from zerocon.core.registry import use_plugins

    if ours.version:
        print(f"zerocon {__version__}")
        return 0
    if ours.verbose:
        tell_more()
    use_plugins(ours.plugin)
    asked = asked_of(rest, program)
    if asked.help:
        from zerocon.commands.explain import help_text

        print(help_text(asked.overrides, asked.folders, program))
        return 0
    if asked.only_tells:
        return _hydra(rest, program)[0]
    status = preflight(asked)
    if status is not None:
        return status
    RUNS.count = count_of(asked)
    from zerocon.runs.models import kept_between_runs

    with kept_between_runs():
        refused, statuses = _hydra(rest, program)
    return refused or exit_status(asked, statuses)


def _own_options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Separate the options that Hydra does not have; of `--version`, it would tell its own."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--plugin", action="append", default=[])
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("--version", action="store_true")
    return parser.parse_known_args(arguments)


class Asked:
    """A command line as Hydra parses it."""

    def __init__(self, options: argparse.Namespace) -> None:
        from zerocon.config.compose import in_folders

        folders = [Path(options.config_dir)] if options.config_dir else []
        self.overrides: list[str] = [*in_folders(folders), *options.overrides]
        self.given: list[str] = options.overrides
        self.folders = folders
        self.multirun: bool = options.multirun
        self.help: bool = options.help
        tells = ("help", "hydra_help", "cfg", "info", "shell_completion", "experimental_rerun")
        self.only_tells = any(getattr(options, name) for name in tells)
        # Hydra then composes another config, which is checked when it is run.
        self.elsewhere = bool(options.config_name or options.config_path)

    @property
    def is_plain(self) -> bool:
        """Whether no option is for Hydra itself, except that this is a sweep."""
        return not any(o.lstrip("+~").startswith("hydra") for o in self.given)


def asked_of(arguments: Sequence[str], program: str = "run.py") -> Asked:
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.prog = program
    return Asked(parser.parse_args(list(arguments)))


def preflight(asked: Asked) -> int | None:
    """Compose all runs of the command; raise ConfigError if one can't be.

    If all are finished, report them and return the exit status, else return None.
    """
    if asked.elsewhere:
        return None
    runs = _checked(asked)
    if runs is None or not asked.is_plain:
        return None
    return max(_report_finished(overrides, config) for overrides, config in runs)


def _checked(asked: Asked) -> list[tuple[Sequence[str], dict[str, Any]]] | None:
    """Return the runs' configs if all runs are finished; else check the first unfinished ones."""
    from zerocon.config.bind import build
    from zerocon.config.compose import compose_config, parse, plain, sweep
    from zerocon.config.settings import check_top, settings_of
    from zerocon.runs.progress import loading

    if not asked.multirun:
        for override in parse(asked.overrides):
            if override.is_sweep_override():
                raise ConfigError(
                    f"{override.input_line} is a sweep: use -m for one run after another, or "
                    "quote it if it is one value"
                )
    finished: list[tuple[Sequence[str], dict[str, Any]]] = []
    every = True
    for number, combination in enumerate(sweep(asked.overrides)):
        if number >= MOST_CHECKED and not every:
            break
        config = plain(compose_config(combination))
        check_top(config)
        # A finished run was checked when it began, except for its tracker, which may be another
        # now. Building all of it again would take time.
        build(config, "tracker")
        if _is_complete(config):
            finished.append((combination, config))
        else:
            if every:
                loading(_in_words(config))
            settings_of(config)
            every = False
    return finished if every else None


def _in_words(config: Mapping[str, Any]) -> str:
    """`run: ZeroCon on Shapes`: the run's name, its method and its backbone."""
    from zerocon.config.bind import node_of

    nodes = (node_of(config, group) for group in ("method", "backbone"))
    method, backbone = (str(node.get("_target_")).rsplit(".", 1)[-1] for node in nodes)
    return f"{config.get('name')}: {method} on {backbone}"


def _report_finished(overrides: Sequence[str], config: dict[str, Any]) -> int:
    """Report a finished run and return its exit status."""
    from rich.console import Console

    console = Console()
    if overrides:
        said = printable(" ".join(overrides))
        console.print(said, highlight=False, soft_wrap=True, markup=False)
    return 1 if _reported(config, console) else 0


def _hydra(arguments: Sequence[str], program: str) -> tuple[int, list[int]]:
    """Run Hydra; return its own exit status and those of the runs done in this process."""
    import hydra

    from zerocon.config.places import CONF

    STATUSES.clear()
    before, sys.argv = sys.argv, [program, *arguments]
    try:
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(task)()
    except SystemExit as stop:  # Hydra exits with 1 if it could not compose
        return (2 if stop.code else 0), STATUSES
    finally:
        sys.argv = before
    return 0, STATUSES


STATUSES: list[int] = []  # of the runs done in this process


@dataclass
class Runs:
    """How many runs this command has; 1 in a process that another launcher started."""

    count: int = 1


RUNS = Runs()


def count_of(asked: Asked) -> int:
    from zerocon.config.compose import sweep

    if not asked.multirun or asked.elsewhere:
        return 1
    return sum(1 for _ in sweep(asked.overrides))


def task(cfg: DictConfig) -> None:
    """Do one run; called by Hydra's launchers, here or in another process."""
    STATUSES.append(run_one(cfg))


def run_one(cfg: DictConfig) -> int:
    """Do one run and return its exit status: 0 success, 1 a case failed, 2 it could not start."""
    from zerocon.core.quiet import quiet

    quiet()
    try:
        return 1 if _failures(cfg) else 0
    except Exception as error:  # noqa: BLE001 - raised again if unexpected
        return status_of_error(error, sys.argv[0])


def _failures(cfg: DictConfig) -> int:
    """Do the run's remaining cases, report, and return the number of failed cases."""
    from rich.console import Console

    from zerocon.config.compose import plain
    from zerocon.config.settings import check_top, settings_of

    config = plain(cfg)
    check_top(config)
    if _is_complete(config):
        return _reported(config, Console())
    # Imported late: a finished run needs only its records.
    from zerocon.core.quiet import quiet_models
    from zerocon.runs.runner import execute
    from zerocon.runs.tally import Place

    settings = settings_of(config)
    quiet_models()
    return execute(settings, Place(len(STATUSES) + 1, RUNS.count)).failed


def exit_status(asked: Asked, here: Sequence[int]) -> int:
    """The runs' worst exit status; runs done in other processes are read from their records."""
    from zerocon.config.compose import compose_config, sweep

    if not asked.multirun or here or asked.only_tells or asked.elsewhere:
        return max(here, default=0)
    return max(_elsewhere(compose_config(c)) for c in sweep(asked.overrides))


def _elsewhere(cfg: DictConfig) -> int:
    """Report the progress of a run done by another process and return its exit status."""
    from rich.console import Console

    from zerocon.config.compose import plain
    from zerocon.config.settings import directory_of, runner_settings
    from zerocon.ledger.run_directory import RunDirectory
    from zerocon.runs.results import is_complete

    config = plain(cfg)
    run, shard = RunDirectory(directory_of(config)), runner_settings(config).shard
    status = run.status()
    said = status.words() if status.cases else "it did not start; see its job's output"
    Console().print(printable(f"{run}: {said}"), highlight=False, soft_wrap=True, markup=False)
    if not is_complete(run, retry_failed=False, shard=shard):
        return 2
    return 1 if status.failed else 0


def _is_complete(config: dict[str, Any]) -> bool:
    from zerocon.config.settings import directory_of, runner_settings
    from zerocon.ledger.run_directory import ORIGIN, RunDirectory

    runner, directory = runner_settings(config), directory_of(config)
    if not (directory / ORIGIN).exists():  # not started
        return False
    from zerocon.runs.results import is_complete, must_begin_anew

    run = RunDirectory(directory)
    if must_begin_anew(run, config, runner.on_code_change):
        return False
    return is_complete(run, retry_failed=runner.retry_failed, shard=runner.shard)


def _reported(config: dict[str, Any], console: Console) -> int:
    """Print a finished run's table if its inputs are unchanged; return the number of failures."""
    from zerocon.config.bind import build
    from zerocon.config.settings import directory_of, runner_settings
    from zerocon.ledger.code import code_digests
    from zerocon.ledger.run_directory import RunDirectory
    from zerocon.runs.inputs import check_finished
    from zerocon.runs.results import report

    runner, run = runner_settings(config), RunDirectory(directory_of(config))
    make = build(config, "dataset", later=("pixels",))
    unchecked = check_finished(run, config, make, runner.on_code_change)
    code = code_digests(config)
    return report(run, console, per_type=runner.per_type, unchecked=unchecked, code=code)[1]
