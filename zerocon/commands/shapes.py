"""`zerocon shapes`: the shapes world's models and its benchmark."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerocon.core.quiet import quiet_models
from zerocon.core.threads import choose

if TYPE_CHECKING:
    from zerocon.backbones.base import Backbone


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
    train.add_argument(
        "--threads", type=int, help="processor threads; default: as many as cores are free"
    )
    train.add_argument(
        "--warm", action="store_true", help="start the U-Net from the weights in --out"
    )
    train.add_argument("--device", default="cpu", help="cpu, or cuda for the flow transformer")
    train.set_defaults(handler=_train)


def _train(options: argparse.Namespace) -> None:
    from zerocon.shapes.train.stages import PACKAGED, train_stages

    quiet_models()
    threads = choose(options.threads or "auto")
    where = f"{options.device}; {threads.words()}; results in {options.out or PACKAGED}"
    sys.stderr.write(f"{', '.join(options.stages) or 'all stages'} on {where}\n")
    changes = {k: getattr(options, k) for k in ("steps", "batch") if getattr(options, k)}
    train_stages(
        options.stages,
        options.work,
        options.out or PACKAGED,
        scenes=options.scenes,
        seconds=options.seconds,
        threads=threads.threads,
        warm=options.warm,
        device=options.device,
        changes=changes,
    )


def _check(options: argparse.Namespace) -> None:
    from zerocon.runs.progress import Display, Far, loading

    loading("the packaged models")
    from zerocon.directions.captioner import load_captioner
    from zerocon.runs.threads import use
    from zerocon.shapes.check import check, evaluations

    quiet_models()
    threads = choose("auto", small=True)
    use(threads.threads)
    sys.stderr.write(f"the packaged models; {threads.words()}; {options.captions} captions\n")
    models: list[Backbone] = []
    parts = ["loading the models"]

    def far() -> Far:
        rows = sum(model.evaluations.forward for model in models)
        return Far(rows, max(rows, evaluations(options.captions)), f"measuring: {parts[-1]}")

    with Display(far):
        found = check(load_captioner(), parts.append, models.append, captions=options.captions)
    print(json.dumps(found, indent=2))


def _benchmark(options: argparse.Namespace) -> None:
    from zerocon.shapes.benchmark import write_benchmark

    write_benchmark(options.folder, options.size, options.split)
    print(f"ShapesPIE-{options.size} ({options.split}) is in {options.folder}")
