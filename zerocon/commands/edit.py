"""`zerocon edit`: edit one picture."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerocon.commands.options import add_composing, add_verbose
from zerocon.core.quiet import quiet_models

if TYPE_CHECKING:
    from PIL import Image

    from zerocon.backbones.base import Backbone
    from zerocon.config.settings import RunSettings
    from zerocon.core.cases import Case

log = logging.getLogger(__name__)
SHOWN = 320  # pixels: pictures less high than that are enlarged side by side


def add(commands: Any) -> None:
    edit = commands.add_parser("edit", help="edit one picture")
    edit.add_argument("image", type=Path)
    edit.add_argument(
        "--source", default="", help="prompt that describes the picture; default: its caption"
    )
    edit.add_argument("--target", required=True, help="prompt that describes the edited picture")
    edit.add_argument(
        "--blend",
        nargs=2,
        metavar=("OLD", "NEW"),
        help="the edited words, in the source and in the target prompt "
        "(for Prompt-to-Prompt's local blend and MasaCtrl's mask)",
    )
    edit.add_argument(
        "--mask", type=Path, help="picture that is white where to edit (for method=kv_edit)"
    )
    edit.add_argument(
        "--out", type=Path, help="file to write; default: beside the picture, with -edited"
    )
    edit.add_argument("overrides", nargs="*", help="as for run.py, such as method=zerocon")
    add_composing(edit)
    add_verbose(edit)
    edit.set_defaults(handler=_edit)


def _edit(options: argparse.Namespace) -> None:
    from zerocon.runs.progress import LOADING, Display, console, loading

    loading(f"edit of {options.image}")
    from zerocon.api import check_blend, check_mask, opened, remarks, request, settings_of_edit
    from zerocon.core.pictures import case_pictures
    from zerocon.runs.tally import edit_headline
    from zerocon.runs.threads import chosen, use

    out: Path = options.out or options.image.with_name(f"{options.image.stem}-edited.png")
    given = opened(options.image)  # before the models load
    settings = settings_of_edit(options.source, options.overrides)
    check_mask(settings, given=options.mask is not None)
    area = None if options.mask is None else opened(options.mask)
    quiet_models()
    threads = chosen(settings)
    use(threads.threads)
    with Display(lambda: LOADING):
        backbone = settings.backbone.load()
    blend = tuple(options.blend) if options.blend else None
    for said in remarks(given, backbone.size, getattr(settings.backbone, "world", None)):
        print(f"Note: {said}.", file=sys.stderr)
    case = request(given, backbone.size, options.source, options.target, blend, area)
    check_blend(settings, backbone, case)
    console().print(edit_headline(settings, backbone, threads, out), soft_wrap=True, markup=False)
    picture = _edited(settings, backbone, case)
    both = out.with_name(f"{out.stem}-side-by-side.png")
    picture.save(out)
    side_by_side(case_pictures(case)["source"], picture).save(both)
    print(f"{out} is the edit, {both} has the source beside it")
    if blend is None and getattr(settings.method, "local_blend", False):
        print("The edit covers the whole picture; --blend OLD NEW limits it to the words' region.")


def _edited(settings: RunSettings, backbone: Backbone, case: Case) -> Image.Image:
    from zerocon.api import Edit
    from zerocon.runs.costs import Costs, cost_in_words
    from zerocon.runs.progress import Display
    from zerocon.runs.tally import one_edit
    from zerocon.runs.worker import prepare

    costs = Costs()
    with Display(lambda: one_edit(settings, costs, backbone)), costs.batch(backbone, 1):
        made = Edit(settings, backbone, case, prepare(settings, backbone, [case]))
        with costs.of("inversion", backbone):
            trajectory = made.invert()
        with costs.of("editing", backbone):
            latent = made.sample(trajectory)
        picture = made.picture(latent)
    log.info("%s", cost_in_words(costs.summary(backbone)))
    return picture


def side_by_side(source: Image.Image, edited: Image.Image) -> Image.Image:
    """Small pictures are enlarged by a whole factor, so that each pixel stays one colour."""
    from PIL import Image

    gap = max(2, source.width // 32)
    paper = Image.new("RGB", (2 * source.width + gap, source.height), "white")
    paper.paste(source, (0, 0))
    paper.paste(edited, (source.width + gap, 0))
    times = max(1, SHOWN // source.height)
    return paper.resize((times * paper.width, times * paper.height), Image.Resampling.NEAREST)
