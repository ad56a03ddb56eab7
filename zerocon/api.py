"""The Python interface: load a model, invert a picture, sample, read activations.

    backbone = zerocon.load("shapes")
    edit = zerocon.prepare("photo.png", source="…", target="…", backbone=backbone)
    trajectory = edit.invert()
    with zerocon.record(backbone.taps, "cross", "probs") as seen:
        latent = edit.sample(trajectory)
    edit.picture(latent).save("edited.png")

`zerocon.edit` does all of this in one call. Settings are those of the command line.
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
from zerocon.core.size import Size

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
    """Load a backbone by its name in `conf/backbone`: `load("sd15", "backbone.path=sd15")`."""
    from zerocon.config.bind import build
    from zerocon.config.compose import compose_config, plain

    for override in overrides:
        if not override.lstrip("+").startswith("backbone."):
            raise ConfigError(f"{override} is not a setting of a backbone; write backbone.…=…")
    config = plain(compose_config([f"backbone={name}", *overrides]))
    return build(config, "backbone")().load()


def compose(overrides: Sequence[str] = ()) -> RunSettings:
    """Compose and check a run's settings: `compose(["method=pnp", "method.steps=20"])`.

    The configured objects are `.method`, `.inversion`, `.direction`, `.backbone`, ….
    """
    from zerocon.config.settings import compose_settings

    return compose_settings(overrides)


@dataclass(frozen=True, eq=False)
class Edit:
    """One picture and its prompts, ready for inversion and sampling."""

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
        """Invert the picture; the latents are [step + 1, 1, channel, y, x].

        To sample from another latent, use `trajectory.starting_from(z)`.
        """
        from zerocon.runs.worker import invert

        return invert(self.settings, self.backbone, self.batch)

    def sample(self, trajectory: Trajectory | None = None) -> Tensor:
        """Sample the edited latent, [1, channel, y, x]."""
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
    mask: Picture | None = None,
    method: str = "zerocon",
    overrides: Sequence[str] = (),
    backbone: Backbone | None = None,
) -> Edit:
    """Prepare an edit without sampling; the arguments are those of `edit`."""
    from zerocon.runs.worker import prepare as prepare_batch

    settings = settings_of_edit(source, [f"method={method}", *overrides])
    loaded = backbone or settings.backbone.load()
    case = request(image, loaded.size, source, target, blend, mask)
    check_blend(settings, loaded, case)
    check_mask(settings, given=mask is not None)
    return Edit(settings, loaded, case, prepare_batch(settings, loaded, [case]))


def edit(
    image: Picture,
    *,
    target: str,
    source: str = "",
    blend: tuple[str, str] | None = None,
    mask: Picture | None = None,
    method: str = "zerocon",
    overrides: Sequence[str] = (),
    backbone: Backbone | None = None,
) -> Image.Image:
    """Edit the picture, described by `source`, to match `target`.

    `overrides` are settings as on the command line: `["loss.cut_weight=0.5"]`. Without `source`,
    the picture's caption is used (`direction=caption`); with it, zeroCon's automatic direction
    starts from the given prompt (`direction=sentences`). `blend`: the edited words in the source
    and the target prompt; Prompt-to-Prompt preserves the rest of the picture, and MasaCtrl's mask
    needs them. `mask`: white where to edit, of the picture's shape, for methods that edit within
    one. Pass a loaded `backbone` to edit many pictures.
    """
    made = prepare(
        image,
        target=target,
        source=source,
        blend=blend,
        mask=mask,
        method=method,
        overrides=overrides,
        backbone=backbone,
    )
    return made.picture(made.sample())


def settings_of_edit(source: str, overrides: Sequence[str]) -> RunSettings:
    """Settings for one picture; needs prompts, or a direction that makes them.

    A method with the automatic direction uses the given source prompt in place of the caption.
    """
    from zerocon.config.compose import compose_config
    from zerocon.config.settings import compose_settings

    automatic: list[str] = []
    if not source and not any(o.startswith("direction=") for o in overrides):
        automatic = ["direction=caption"]
    elif source and not any(o.lstrip("+").startswith(_DECIDES) for o in overrides):
        usual = str(compose_config(overrides)["direction"]["_target_"])
        automatic = ["direction=sentences"] if usual == _CAPTION else []
    return compose_settings([*automatic, *overrides], worlds="edit")


_DECIDES = ("direction", "experiment=")
_CAPTION = "zerocon.directions.Caption"


def request(
    picture: Any,
    size: Size,
    source: str,
    target: str,
    blend: tuple[str, str] | None = None,
    mask: Any = None,
) -> Case:
    from zerocon.core.cases import CaseError
    from zerocon.datasets.images import light_mask, mask_tensor, picture_tensor

    if not target.strip():
        raise ConfigError("the target prompt is empty: describe the edited picture")
    whole = opened(picture)
    area = None
    if mask is not None:
        try:
            area = mask_tensor(light_mask(opened(mask)), size, whole)
        except CaseError as error:
            raise ConfigError(str(error)) from error
    return Case(
        "picture", picture_tensor(whole, size), source, target, blend_words=blend, mask=area
    )


def opened(picture: Any) -> Image.Image:
    """The picture in its own size, from a file, an array or a picture; no model is needed."""
    from zerocon.core.cases import CaseError
    from zerocon.datasets.images import open_picture

    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if not isinstance(picture, str | Path):
        return Image.fromarray(picture).convert("RGB")
    if not Path(picture).is_file():
        raise ConfigError(f"there is no picture {picture}")
    place = Path(picture).resolve()  # a link may lead anywhere
    try:
        return open_picture(place.name, place.parent)[0]
    except CaseError as error:
        raise ConfigError(f"{picture} can't be read as a picture: {error}") from error


def remarks(picture: Image.Image, size: Size, world: str | None) -> list[str]:
    """What to know about a picture that is not of the model's size or world."""
    from zerocon.datasets.images import picture_tensor
    from zerocon.shapes.looks import looks_like_shapes

    said: list[str] = []
    whole = Size.of(picture)
    if whole != size:
        part = size.within(whole)
        centre = "its centre square is " if size.is_square else "its centre is "
        crop = "it is " if part == whole else centre
        done = "enlarged" if part.height < size.height else "scaled down"
        same = "cut out" if part == size else f"{done} to that"
        said.append(f"the picture has {whole} pixels, the model works on {size}: {crop}{same}")
    small = (picture_tensor(picture, Size.square(64)) * 255).round().byte().permute(1, 2, 0).numpy()
    if world == "shapes" and not looks_like_shapes(small):
        said.append(
            "the picture does not look like the shapes world, which is all that this model knows; "
            "for photographs use backbone=sd15 backbone.path=… (README)"
        )
    return said


def check_mask(settings: RunSettings, *, given: bool) -> None:
    """Raise ConfigError for a mask that is missing, or that would have no effect."""
    method = settings.method
    if method.uses_mask and not given:
        raise ConfigError(
            f"{type(method).__name__} edits within a mask, a picture that is white there: "
            "mask=…, or --mask FILE"
        )
    if given and not method.uses_mask:
        raise ConfigError(f"{type(method).__name__} uses no mask; method=kv_edit edits within one")


def check_blend(settings: RunSettings, backbone: Backbone, case: Case) -> None:
    """Raise ConfigError for blend words that would have no effect."""
    from zerocon.core.prompts import words_of

    method = settings.method
    if case.blend_words is None:
        if getattr(method, "masked", False):
            raise ConfigError(
                "method.masked=true needs the edited words: "
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
            raise ConfigError(f"blend: {word!r} is not in the {which} prompt {prompts[which]!r}")
