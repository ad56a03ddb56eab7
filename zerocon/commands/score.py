"""`zerocon score`: compute the metrics of edited pictures made elsewhere."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from zerocon.commands.dataset import add_size, asked_size, only
from zerocon.commands.options import add_composing
from zerocon.core.naming import content_of, digest
from zerocon.core.quiet import quiet_models


def add(commands: Any) -> None:
    score = commands.add_parser(
        "score", help="compute the metrics of edited pictures made elsewhere"
    )
    score.add_argument(
        "--dataset",
        required=True,
        help="a choice of conf/dataset, or a folder in PIE-Bench's format",
    )
    score.add_argument(
        "--outputs",
        required=True,
        type=Path,
        help="a folder (flat by case id, with the sources' paths, or with a folder for "
        "each method), or a CSV file with the columns case and path",
    )
    score.add_argument("--protocol", default="masked", choices=("masked", "published"))
    score.add_argument(
        "--legacy-jpeg",
        action="store_true",
        help="recompress pictures that are not JPEG, as published",
    )
    score.add_argument(
        "--given-mask",
        choices=("yes", "no"),
        help="whether the method was given the masks; tables separate such runs; default: unknown",
    )
    score.add_argument("--method", action="append", default=[], help="only this one (repeatable)")
    add_size(score)
    score.add_argument("--per-type", action="store_true", help="add a table for each edit type")
    score.add_argument(
        "overrides",
        nargs="*",
        help="settings of dataset, metrics, runner and mixed_worlds, such as dataset.root=…",
    )
    add_composing(score)
    score.set_defaults(handler=_score)


def _score(options: argparse.Namespace) -> None:
    """Exit status 0: all cases were scored; 1: some failed; 2: nothing could be scored."""
    from zerocon.config.bind import build, metrics_of
    from zerocon.config.compose import compose_config, plain
    from zerocon.config.settings import runner_settings, worlds_mixed_in

    overrides = _overrides(options)
    config = plain(compose_config(overrides))
    make = build(config, "dataset", later=("pixels",))
    mixture = worlds_mixed_in(
        {key: config[key] for key in ("dataset", "metrics", "mixed_worlds") if key in config}
    )
    size = asked_size(options, make)
    dataset = make(pixels=size)
    metrics = metrics_of(config)
    # Imported late: wrong options are reported before the slow imports.
    from zerocon.runs.outputs import Rules, find_outputs
    from zerocon.runs.score import Scoring, score_outputs

    rules = Rules(size, options.protocol == "published", options.legacy_jpeg)
    found = find_outputs(options.outputs, dataset, options.method)
    quiet_models()
    judges = metrics()
    failed = 0
    for outputs in found:
        asked = _config(config, outputs.name, outputs.fingerprint(), rules)
        if options.given_mask is not None:
            asked["scored"]["given_mask"] = options.given_mask == "yes"
        directory = Path(config["runner"]["root"]) / f"{outputs.name}-{_digest(asked)}"
        scoring = Scoring(
            outputs,
            dataset,
            judges,
            rules,
            asked,
            directory,
            runner_settings(config).chunk_size,
            mixture,
        )
        gallery_cases = config["runner"]["gallery_cases"]
        failed += score_outputs(
            scoring, gallery_cases=gallery_cases, per_type=options.per_type
        ).failed
    sys.exit(1 if failed else 0)


def _overrides(options: argparse.Namespace) -> list[str]:
    from zerocon.config.places import CONF

    only(options.overrides, ("dataset", "metrics", "runner", "mixed_worlds"))
    chosen = [f"dataset={options.dataset}"]
    is_choice = (CONF / "dataset" / f"{options.dataset}.yaml").exists()
    if not is_choice and Path(options.dataset).is_dir():
        chosen = ["dataset=pie_bench", f"dataset.root={options.dataset}"]
    return [*chosen, f"metrics={options.protocol}", *options.overrides]


def _config(config: dict[str, Any], name: str, fingerprint: str, rules: Any) -> dict[str, Any]:
    """The config to store in the run's directory: relevant settings, and what was scored."""
    height, width = rules.size
    size = {"side": height} if rules.size.is_square else {"height": height, "width": width}
    method = {"name": name, "outputs": fingerprint, **size}
    return {
        "name": name,
        "dataset": config["dataset"],
        "metrics": config["metrics"],
        "mixed_worlds": config["mixed_worlds"],
        "scored": {**method, "legacy_jpeg": rules.legacy_jpeg},
        "runner": config["runner"],
    }


def _digest(asked: dict[str, Any]) -> str:
    return digest(content_of(asked))
