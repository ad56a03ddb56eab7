"""`zerocon.edit`: one picture, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from zerocon.core.cases import Case
from zerocon.core.checks import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zerocon.backbones.base import Backbone
    from zerocon.config.settings import RunSettings


def edit(
    image: Image.Image | NDArray[np.uint8] | str | Path,
    *,
    target: str,
    source: str = "",
    method: str = "zerocon",
    overrides: Sequence[str] = (),
    backbone: Backbone | None = None,
) -> Image.Image:
    """The picture, edited from what `source` says of it to what `target` says.

    `overrides` are settings as on the command line: `["loss.cut_weight=0.5"]`. Without a
    `source` the picture's caption takes its place (`direction=caption`). Give a loaded
    `backbone` to edit many pictures with one.
    """
    settings = settings_of_edit(source, [f"method={method}", *overrides])
    loaded = backbone or settings.backbone.load()
    return edited(settings, loaded, request(image, loaded.side, source, target))


def settings_of_edit(source: str, overrides: Sequence[str]) -> RunSettings:
    """Of a run of one picture; the prompts are needed, or something that writes them."""
    from zerocon.config.settings import compose_settings

    chosen = any(o.startswith("direction=") for o in overrides)
    automatic = [] if source or chosen else ["direction=caption"]
    return compose_settings([*automatic, *overrides], worlds="edit")


def request(picture: Any, side: int, source: str, target: str) -> Case:
    from zerocon.datasets.images import open_picture, picture_tensor

    if not target.strip():
        raise ConfigError("the target prompt is empty: say what the picture should become")
    if isinstance(picture, str | Path):
        place = Path(picture)
        picture, _ = open_picture(place.name, place.parent)
    elif not isinstance(picture, Image.Image):
        picture = Image.fromarray(picture)
    tensor = picture_tensor(picture.convert("RGB"), side)
    return Case("picture", tensor, source_prompt=source, target_prompt=target)


def edited(settings: RunSettings, backbone: Backbone, case: Case) -> Image.Image:
    from zerocon.core.pictures import to_uint8
    from zerocon.runs.worker import edit as edit_batch

    return Image.fromarray(to_uint8(edit_batch(settings, backbone, [case]))[0])
