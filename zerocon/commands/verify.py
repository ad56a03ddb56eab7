"""`zerocon verify`: check a run's records against its pictures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerocon.commands.options import add_plugins
from zerocon.core.text import printable

if TYPE_CHECKING:
    from zerocon.runs.verify import Verification

MOST = 50  # problems printed


def add(commands: Any) -> None:
    verify = commands.add_parser("verify", help="recompute a run's numbers from its pictures")
    verify.add_argument("run", type=Path, help="a run's directory")
    verify.add_argument("overrides", nargs="*", help="current locations, such as dataset.root=…")
    verify.add_argument(
        "--tolerance", type=float, default=1e-4, help="relative tolerance (default: %(default)s)"
    )
    verify.add_argument("--batch", type=int, default=16, help="batch size")
    verify.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda"), help="device to compute on"
    )
    add_plugins(verify)
    verify.set_defaults(handler=_verify)


def _verify(options: argparse.Namespace) -> None:
    from zerocon.core.quiet import quiet_models
    from zerocon.runs.verify import verify

    quiet_models()
    found = verify(
        options.run,
        options.overrides,
        relative=options.tolerance,
        batch_size=options.batch,
        device=options.device,
    )
    for problem in found.problems[:MOST]:
        print(printable(problem))
    if len(found.problems) > MOST:
        print(f"… and {len(found.problems) - MOST} more")
    print(printable(_in_words(found)))
    if found.problems:
        sys.exit(1)


def _in_words(found: Verification) -> str:
    looked = f"{found.records} records, {found.scored} pictures, {found.numbers} numbers"
    if found.problems:
        return f"{looked}: {len(found.problems)} not as recorded."
    if not found.largest:
        return f"{looked}: nothing to compare."
    name = max(found.largest, key=lambda column: found.largest[column])
    return f"{looked}: all as recorded (largest difference: {found.largest[name]:.1e}, of {name})."
