"""The `zerocon` command: what is not a run. Each subcommand is a file of `zerocon/commands`."""

from __future__ import annotations

import argparse
import pkgutil
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from zerocon import commands as commands_package
from zerocon.core.quiet import quiet
from zerocon.core.text import printable_lines

Handler = Callable[[argparse.Namespace], None]

_ERRORS = {
    "zerocon.backbones.base": "BackboneError",
    "zerocon.core.cases": "DatasetError",
    "zerocon.core.checks": "ConfigError",
    "zerocon.ledger.records": "RecordError",
}


def main(arguments: Sequence[str] | None = None) -> None:
    quiet()
    options = parsed(arguments)
    handler: Handler = options.handler
    try:
        handler(options)
    except Exception as error:
        if not isinstance(error, _explained()):
            raise
        sys.stderr.write(f"zerocon: {printable_lines(error)}\n")
        sys.exit(2)


def _explained() -> tuple[type[Exception], ...]:
    """What says in plain words what is wrong, of the modules that are loaded.

    A module that is not loaded raised nothing, and most commands need no torch.
    """
    loaded = {name: sys.modules[name] for name in _ERRORS if name in sys.modules}
    return OSError, *(getattr(module, _ERRORS[name]) for name, module in loaded.items())


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Settings like `method=zerocon` may stand anywhere, also after options."""
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
    commands = top.add_subparsers(required=True, metavar="command")
    for module in sorted(m.name for m in pkgutil.iter_modules(commands_package.__path__)):
        import_module(f"{commands_package.__name__}.{module}").add(commands)
    return top


if __name__ == "__main__":
    main()
