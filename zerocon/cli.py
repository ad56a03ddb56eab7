"""The `zerocon` command. Each subcommand is a file of `zerocon/commands`."""

from __future__ import annotations

import argparse
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from zerocon import __version__
from zerocon import commands as commands_package
from zerocon.commands.words import status_of_error
from zerocon.core.quiet import quiet, tell_more
from zerocon.core.threads import wait_politely

Handler = Callable[[argparse.Namespace], None]


def main(arguments: Sequence[str] | None = None, program: str = "zerocon") -> None:
    """Run the command; errors end in a message and an exit status."""
    wait_politely()  # before torch is imported
    status = guarded(list(sys.argv[1:] if arguments is None else arguments), program)
    if status:
        sys.exit(status)


def guarded(arguments: Sequence[str], program: str) -> int:
    """Run the command and return its exit status."""
    if arguments[:1] == ["run"] and program == "zerocon":
        program = "zerocon run"
    try:
        quiet()
        return _status(arguments, program)
    except BrokenPipeError:  # the reader of our output closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - raised again if unexpected
        return status_of_error(error, program)


def _status(arguments: Sequence[str], program: str) -> int:
    if arguments[:1] == ["run"]:
        from zerocon.commands.run import main as run

        return run(arguments[1:], program)
    options = parsed(arguments)
    if getattr(options, "verbose", False):
        tell_more()
    if getattr(options, "plugins", None):
        from zerocon.core.registry import use_plugins

        use_plugins(options.plugins)
    if getattr(options, "config_dirs", None):
        from zerocon.config.compose import in_folders

        options.overrides = [*in_folders(options.config_dirs), *options.overrides]
    handler: Handler = options.handler
    handler(options)
    return 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; settings like `method=zerocon` may be anywhere, even after options."""
    top = parser()
    options, rest = top.parse_known_args(arguments)
    stray = [word for word in rest if word.startswith("-") or "=" not in word]
    if stray or (rest and not hasattr(options, "overrides")):
        top.error(f"unrecognized arguments: {' '.join(stray or rest)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="zerocon", description=__doc__)
    top.add_argument("--version", action="version", version=f"zerocon {__version__}")
    commands = top.add_subparsers(required=True, metavar="command")
    for module in sorted(m.name for m in pkgutil.iter_modules(commands_package.__path__)):
        add = getattr(import_module(f"{commands_package.__name__}.{module}"), "add", None)
        if add is not None:  # else it is a module shared by commands
            add(commands)
    return top


if __name__ == "__main__":
    main()
