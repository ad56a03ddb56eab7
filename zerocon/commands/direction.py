"""`zerocon direction`: compute one edit direction and look at it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zerocon.commands.options import add_composing
from zerocon.core.quiet import quiet_models


def add(commands: Any) -> None:
    direction = commands.add_parser(
        "direction", help="compute one edit direction, and how far it moves the condition"
    )
    direction.add_argument("--image", type=Path, help="the picture, for direction=caption")
    direction.add_argument("--out", type=Path, help="write it, for direction=file")
    direction.add_argument("source", help='the source prompt; "" lets the caption take its place')
    direction.add_argument("target", help="the target prompt")
    direction.add_argument(
        "overrides", nargs="*", help="as for run.py, such as direction=sentences backbone=shapes"
    )
    add_composing(direction)
    direction.set_defaults(handler=_direction)


def _direction(options: argparse.Namespace) -> None:
    from zerocon.config.bind import build
    from zerocon.config.compose import compose_config, plain
    from zerocon.config.settings import worlds_mixed_in
    from zerocon.core.cases import CaseError
    from zerocon.core.checks import ConfigError
    from zerocon.directions.inspect import inspected, print_report, save_direction, without_effect

    config = plain(compose_config(options.overrides))
    without_effect(options.overrides)
    quiet_models()
    worlds_mixed_in(config, scored=False)
    direction = build(config, "direction")()
    backbone = build(config, "backbone")().load()
    try:
        found = inspected(backbone, direction, options.source, options.target, options.image)
    except CaseError as error:  # there is only this case
        raise ConfigError(str(error)) from error
    print_report(found)
    if options.out:
        save_direction(found, options.out, backbone.fingerprint)
        print(f"written to {options.out}: direction=file direction.path={options.out}")
