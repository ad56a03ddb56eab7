"""The parts of an edit, from Python: load a model, invert a picture, sample, look inside.

    backbone = zerocon.load("shapes")
    edit = zerocon.prepare("photo.png", source="…", target="…", backbone=backbone)
    trajectory = edit.invert()
    with zerocon.record(backbone.taps, "cross", "probs") as seen:
        latent = edit.sample(trajectory)
    edit.picture(latent).save("edited.png")

`zerocon.edit` does all of it in one call. Settings are those of the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from zerocon.core.cases import Case
from zerocon.core.checks import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from zerocon.backbones.base import Backbone
    from zerocon.config.settings import RunSettings
    from zerocon.core.conditions import Conditions, Draws
    from zerocon.inversions.base import Trajectory
    from zerocon.runs.worker import Prepared

    Picture = Image.Image | NDArray[np.uint8] | str | Path


def load(name: str = "shapes", *overrides: str) -> Backbone:
    """A backbone by its name in `conf/backbone`: `load("sd15", "backbone.path=sd15")`."""
    from zerocon.config.bind import build
    from zerocon.config.compose import compose_config, plain

    for override in overrides:
        if not override.lstrip("+").startswith("backbone."):
            raise ConfigError(f"{override} is no setting of a backbone; write backbone.…=…")
    config = plain(compose_config([f"backbone={name}", *overrides]))
    return build(config, "backbone")().load()


def compose(overrides: Sequence[str] = ()) -> RunSettings:
    """The settings of a run, checked: `compose(["method=pnp", "method.steps=20"])`.

    What they describe is in `.method`, `.inversion`, `.direction`, `.backbone`, …, as objects.
    """
    from zerocon.config.settings import compose_settings

    return compose_settings(overrides)


@dataclass(frozen=True, eq=False)
class Edit:
    """One picture and what it should become, ready to be inverted and sampled."""

    settings: RunSettings
    backbone: Backbone
    case: Case
    batch: Prepared

    @property
    def clean(self) -> Tensor:
        """The encoded picture, [1, channel, y, x]."""
        return self.batch.clean

    @property
    def conditions(self) -> Conditions:
        return self.batch.conditions

    @property
    def draws(self) -> Draws:
        return self.batch.draws

    def invert(self) -> Trajectory:
        """The picture's latents under the inversion, [step + 1, 1, channel, y, x].

        To sample from another latent, `trajectory.starting_from(z)`.
        """
        from zerocon.runs.worker import invert

        return invert(self.settings, self.backbone, self.batch)

    def sample(self, trajectory: Trajectory | None = None) -> Tensor:
        """The edited latent, [1, channel, y, x]."""
        found = self.invert() if trajectory is None else trajectory
        return self.settings.method(self.backbone, found, self.conditions, self.draws)

    def picture(self, latent: Tensor) -> Image.Image:
        from zerocon.core.pictures import to_uint8

        return Image.fromarray(to_uint8(self.backbone.decode(latent))[0])


def prepare(
    image: Picture,
    *,
    target: str,
    source: str = "",
    blend: tuple[str, str] | None = None,
    method: str = "zerocon",
    overrides: Sequence[str] = (),
    backbone: Backbone | None = None,
) -> Edit:
    """Everything of an edit but the sampling; the arguments are those of `edit`."""
    from zerocon.runs.worker import prepare as prepare_batch

    settings = settings_of_edit(source, [f"method={method}", *overrides])
    loaded = backbone or settings.backbone.load()
    case = request(image, loaded.side, source, target, blend)
    check_blend(settings, loaded, case)
    return Edit(settings, loaded, case, prepare_batch(settings, loaded, [case]))


def edit(
    image: Picture,
    *,
    target: str,
    source: str = "",
    blend: tuple[str, str] | None = None,
    method: str = "zerocon",
    overrides: Sequence[str] = (),
    backbone: Backbone | None = None,
) -> Image.Image:
    """The picture, edited from what `source` says of it to what `target` says.

    `overrides` are settings as on the command line: `["loss.cut_weight=0.5"]`. Without a
    `source` the picture's caption takes its place (`direction=caption`). `blend`: the words that
    the edit is about, in the source and in the target prompt; Prompt-to-Prompt keeps the rest of
    the picture, and MasaCtrl's mask needs them. Give a loaded `backbone` to edit many pictures.
    """
    made = prepare(
        image,
        target=target,
        source=source,
        blend=blend,
        method=method,
        overrides=overrides,
        backbone=backbone,
    )
    return made.picture(made.sample())


def settings_of_edit(source: str, overrides: Sequence[str]) -> RunSettings:
    """Of a run of one picture; the prompts are needed, or something that writes them."""
    from zerocon.config.settings import compose_settings

    chosen = any(o.startswith("direction=") for o in overrides)
    automatic = [] if source or chosen else ["direction=caption"]
    return compose_settings([*automatic, *overrides], worlds="edit")


def request(
    picture: Any, side: int, source: str, target: str, blend: tuple[str, str] | None = None
) -> Case:
    from zerocon.datasets.images import open_picture, picture_tensor

    if not target.strip():
        raise ConfigError("the target prompt is empty: say what the picture should become")
    if isinstance(picture, str | Path):
        place = Path(picture)
        picture, _ = open_picture(place.name, place.parent)
    elif not isinstance(picture, Image.Image):
        picture = Image.fromarray(picture)
    tensor = picture_tensor(picture.convert("RGB"), side)
    return Case("picture", tensor, source_prompt=source, target_prompt=target, blend_words=blend)


def check_blend(settings: RunSettings, backbone: Backbone, case: Case) -> None:
    """ConfigError for blend words that would silently do nothing."""
    from zerocon.core.prompts import words_of

    method = settings.method
    if case.blend_words is None:
        if getattr(method, "masked", False):
            raise ConfigError(
                "method.masked=true needs the words that the edit is about: "
                'blend=("circle", "square"), or --blend circle square'
            )
        return
    if not getattr(method, "local_blend", False) and not getattr(method, "masked", False):
        raise ConfigError(
            f"blend words have no effect with {type(method).__name__} here; method=p2p blends, "
            "and method=masactrl with method.masked=true"
        )
    words = words_of(backbone, case)
    prompts = {"source": case.source_prompt, "target": case.target_prompt}
    for which, word, places in zip(
        prompts, case.blend_words, (words.source_blend, words.target_blend), strict=True
    ):
        if not places and prompts[which]:
            raise ConfigError(
                f"blend: {word!r} does not stand in the {which} prompt {prompts[which]!r}"
            )
