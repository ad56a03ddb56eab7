"""`zerocon shapes`: the shapes world's models and its benchmark."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from zerocon.core.quiet import quiet_models


def add(commands: Any) -> None:
    shapes = commands.add_parser("shapes", help="the shapes world: its models and its benchmark")
    commands = shapes.add_subparsers(required=True, metavar="command")
    _add_train(commands)
    check = commands.add_parser("check", help="measure the models on held-out scenes, as JSON")
    check.add_argument("--captions", type=int, default=500, help="pictures to generate")
    check.set_defaults(handler=_check)
    write = commands.add_parser("benchmark", help="write ShapesPIE to a folder")
    write.add_argument("folder", type=Path)
    write.add_argument("--size", type=int, default=700, choices=(20, 100, 700))
    write.add_argument("--split", default="test", choices=("test", "validation"))
    write.set_defaults(handler=_benchmark)


def _add_train(commands: Any) -> None:
    train = commands.add_parser("train", help="train the models, continuing unfinished stages")
    train.add_argument("stages", nargs="*", metavar="stage", help="default: all, in order")
    train.add_argument("--work", type=Path, default=Path("training"), help="checkpoints and logs")
    train.add_argument("--out", type=Path, help="folder for the models; default: the package")
    train.add_argument("--seconds", type=float, default=math.inf, help="stop each stage after this")
    train.add_argument("--steps", type=int, help="steps of each stage; default: the recipe's")
    train.add_argument("--batch", type=int, help="batch size; default: the recipe's")
    train.add_argument("--scenes", type=int, help="training scenes; default: the recipe's")
    train.add_argument("--threads", type=int, help="processor threads; default: torch's choice")
    train.add_argument(
        "--warm", action="store_true", help="start the U-Net from the weights in --out"
    )
    train.add_argument("--device", default="cpu", help="cpu, or cuda for the flow transformer")
    train.set_defaults(handler=_train)


def _train(options: argparse.Namespace) -> None:
    from zerocon.shapes.train.stages import PACKAGED, train_stages

    quiet_models()
    changes = {k: getattr(options, k) for k in ("steps", "batch") if getattr(options, k)}
    train_stages(
        options.stages,
        options.work,
        options.out or PACKAGED,
        scenes=options.scenes,
        seconds=options.seconds,
        threads=options.threads,
        warm=options.warm,
        device=options.device,
        changes=changes,
    )


def _check(options: argparse.Namespace) -> None:
    from zerocon.directions.captioner import load_captioner
    from zerocon.shapes.check import check

    quiet_models()

    def progress(what: str) -> None:
        sys.stderr.write(f"measuring: {what}\n")

    print(json.dumps(check(load_captioner(), progress, captions=options.captions), indent=2))


def _benchmark(options: argparse.Namespace) -> None:
    from zerocon.shapes.benchmark import write_benchmark

    write_benchmark(options.folder, options.size, options.split)
    print(f"ShapesPIE-{options.size} ({options.split}) is in {options.folder}")
