"""The `zerocon` command: what is not a run."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from zerocon.app import quiet, quiet_models
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
    shapes = commands.add_parser("shapes", help="the shapes world: its models and its benchmark")
    _shapes(shapes)
    table = commands.add_parser("table", help="the results of runs, side by side")
    table.add_argument("runs", nargs="+", type=Path, help="run directories")
    table.add_argument("--per-type", action="store_true", help="one table for each edit type, too")
    table.add_argument("--markdown", action="store_true", help="print Markdown")
    table.set_defaults(handler=_table)
    experiment = commands.add_parser("experiment", help="named sets of runs that answer a question")
    experiment.add_argument("name", nargs="?", help="default: list them")
    experiment.add_argument("overrides", nargs="*", help="for every run, as for run.py")
    experiment.set_defaults(handler=_experiment)
    return top


def _shapes(shapes: argparse.ArgumentParser) -> None:
    commands = shapes.add_subparsers(required=True, metavar="command")
    train = commands.add_parser("train", help="train the models, each stage from where it was left")
    train.add_argument("stages", nargs="*", metavar="stage", help="default: all, in order")
    train.add_argument("--work", type=Path, default=Path("training"), help="checkpoints and logs")
    train.add_argument("--out", type=Path, help="where the models go; default: into the package")
    train.add_argument("--seconds", type=float, default=math.inf, help="stop each stage after this")
    train.add_argument("--steps", type=int, help="steps of each stage; default: the recipe's")
    train.add_argument("--batch", type=int, help="pictures a step; default: the recipe's")
    train.add_argument("--scenes", type=int, help="training scenes; default: the recipe's")
    train.add_argument("--threads", type=int, help="processor threads; default: torch's choice")
    train.add_argument("--warm", action="store_true", help="the U-Net goes on from --out's weights")
    train.set_defaults(handler=_train)
    check = commands.add_parser("check", help="measure the models on held-out scenes, as JSON")
    check.add_argument("--captions", type=int, default=500, help="pictures to generate")
    check.set_defaults(handler=_check)
    write = commands.add_parser("benchmark", help="write ShapesPIE to a folder")
    write.add_argument("folder", type=Path)
    write.add_argument("--size", type=int, default=700, choices=(20, 100, 700))
    write.add_argument("--split", default="test", choices=("test", "validation"))
    write.set_defaults(handler=_benchmark)


def _train(options: argparse.Namespace) -> None:
    from zerocon.shapes.train.stages import SCENES, WEIGHTS, train_stages

    quiet_models()
    changes = {k: getattr(options, k) for k in ("steps", "batch") if getattr(options, k)}
    train_stages(
        options.stages,
        options.work,
        options.out or WEIGHTS,
        scenes=options.scenes or SCENES,
        seconds=options.seconds,
        threads=options.threads,
        warm=options.warm,
        changes=changes,
    )


def _check(options: argparse.Namespace) -> None:
    from zerocon.shapes.check import check

    quiet_models()

    def progress(what: str) -> None:
        sys.stderr.write(f"measuring: {what}\n")

    print(json.dumps(check(progress, captions=options.captions), indent=2))


def _benchmark(options: argparse.Namespace) -> None:
    from zerocon.shapes.benchmark import write_benchmark

    write_benchmark(options.folder, options.size, options.split)
    print(f"ShapesPIE-{options.size} ({options.split}) is in {options.folder}")


def _table(options: argparse.Namespace) -> None:
    from zerocon.runs.results import print_table

    print_table(options.runs, per_type=options.per_type, markdown=options.markdown)


def _experiment(options: argparse.Namespace) -> None:
    from zerocon.experiments import names, read_experiment

    if options.name is None:
        for name in names():
            print(f"{name}: {read_experiment(name).question.strip()}")
        return
    experiment = read_experiment(options.name)
    runs = experiment.settings(options.overrides)
    from zerocon.runs.results import print_table
    from zerocon.runs.runner import execute

    quiet_models()
    print(f"{experiment.question.strip()}\nExpected: {experiment.expected.strip()}")
    outcomes = [execute(settings) for settings in runs]
    print_table([o.directory for o in outcomes], per_type=False, markdown=False)
    if any(outcome.failed for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    main()
