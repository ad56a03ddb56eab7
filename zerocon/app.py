"""What `run.py` does around Hydra: check every override first, run, say how it went."""

from __future__ import annotations

import itertools
import logging
import os
import sys
import warnings
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from zerocon.backbones.base import BackboneError
from zerocon.cases import DatasetError
from zerocon.checks import ConfigError
from zerocon.config import compose_settings, settings_from

MOST_CHECKED = 64  # combinations of a sweep that are checked before it starts


def preflight(arguments: Sequence[str]) -> None:
    """Compose every run that the command asks for; exit with 2 and plain words if one can't be."""
    quiet()
    if any(a in ("--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i") for a in arguments):
        return
    overrides = [a for a in arguments if not a.startswith("-")]
    try:
        for combination in itertools.islice(combinations(overrides), MOST_CHECKED):
            compose_settings(combination)
    except ConfigError as error:
        sys.stderr.write(f"run.py: {error}\n")
        sys.exit(2)


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
    # Imported late: it loads torch, and an override that is wrong should say so at once.
    from zerocon.runs.runner import execute

    quiet()
    try:
        return 1 if execute(settings_from(cfg)).failed else 0
    except (ConfigError, BackboneError, DatasetError) as error:
        sys.stderr.write(f"run.py: {error}\n")
        return 2


def quiet() -> None:
    """Other libraries' chatter would bury what the run has to say."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in ("diffusers", "transformers", "httpx", "open_clip"):
        logging.getLogger(name).setLevel(logging.ERROR)
