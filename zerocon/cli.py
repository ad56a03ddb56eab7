"""The `zerocon` command: what is not a run. Each subcommand is a file of `zerocon/commands`."""

from __future__ import annotations

import argparse
import pkgutil
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from zerocon import commands as commands_package
from zerocon.app import quiet
from zerocon.backbones.base import BackboneError
from zerocon.cases import DatasetError
from zerocon.checks import ConfigError
from zerocon.runs.records import RecordError

Handler = Callable[[argparse.Namespace], None]


def main(arguments: Sequence[str] | None = None) -> None:
    quiet()
    options = parser().parse_args(arguments)
    handler: Handler = options.handler
    try:
        handler(options)
    except (ConfigError, BackboneError, DatasetError, RecordError, OSError) as error:
        sys.stderr.write(f"zerocon: {error}\n")
        sys.exit(2)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="zerocon", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="command")
    for module in sorted(m.name for m in pkgutil.iter_modules(commands_package.__path__)):
        import_module(f"{commands_package.__name__}.{module}").add(commands)
    return top


if __name__ == "__main__":
    main()
