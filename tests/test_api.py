"""One picture, from Python and from the command line, with the packaged models."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import zerocon
from zerocon.api import opened, remarks
from zerocon.cli import main
from zerocon.core.checks import ConfigError
from zerocon.core.size import Size
from zerocon.datasets.images import light_mask
from zerocon.shapes.looks import looks_like_shapes
from zerocon.shapes.render import render
from zerocon.shapes.scene import BACKGROUNDS, STYLES, Scene, Thing

SOURCE, TARGET = "a big red circle on a gray background", "a big blue circle on a gray background"
FEW = ["method.steps=2"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    circle = Thing("circle", "red", "plain", "big", "solid", "upright", 0.5, 0.5)
    file = tmp_path / "photo.png"
    Image.fromarray(render(Scene((circle,), "gray", "photo", 0.5))).resize((100, 90)).save(file)
    return file


def test_from_python(photo: Path) -> None:
    edited = zerocon.edit(photo, source=SOURCE, target=TARGET, overrides=FEW)
    assert edited.size == (64, 64)
    again = zerocon.edit(Image.open(photo), source=SOURCE, target=TARGET, overrides=FEW)
    array = zerocon.edit(np.array(Image.open(photo)), source=SOURCE, target=TARGET, overrides=FEW)
    assert edited.tobytes() == again.tobytes() == array.tobytes()
    other = zerocon.edit(photo, source=SOURCE, target=TARGET, method="word_swap", overrides=FEW)
    assert other.tobytes() != edited.tobytes()


def test_without_a_source_prompt_the_caption_is_used(photo: Path) -> None:
    automatic = zerocon.edit(photo, target=TARGET, method="word_swap", overrides=FEW)
    nothing = ["direction=word_swap", *FEW]
    empty = zerocon.edit(photo, target=TARGET, method="word_swap", overrides=nothing)
    assert automatic.tobytes() != empty.tobytes()


def test_step_by_step_is_the_same_as_in_one_call(photo: Path) -> None:
    backbone = zerocon.load("shapes")
    told: dict[str, Any] = {"source": SOURCE, "target": TARGET, "overrides": FEW}
    once = zerocon.edit(photo, **told, backbone=backbone)
    edit = zerocon.prepare(photo, **told, backbone=backbone)
    trajectory = edit.invert()
    assert trajectory.latents.shape == (3, *edit.clean.shape)
    latent = edit.sample(trajectory)
    assert latent.shape == edit.clean.shape
    assert edit.picture(latent).tobytes() == once.tobytes()
    # From another latent than the inverted one.
    elsewhere = edit.sample(trajectory.starting_from(torch.randn_like(trajectory.start)))
    assert (elsewhere - latent).abs().max() > 0.1
    assert torch.equal(trajectory.starting_from(trajectory.start).latents, trajectory.latents)


def test_activations_are_read_and_replaced(photo: Path) -> None:
    backbone = zerocon.load("shapes")
    edit = zerocon.prepare(
        photo, source=SOURCE, target=TARGET, method="word_swap", overrides=FEW, backbone=backbone
    )
    trajectory = edit.invert()
    with zerocon.record(backbone.taps, "up.1.2.cross", "probs") as seen:
        plain = edit.sample(trajectory)
    assert seen["up.1.2.cross"]["target"].shape[0] == 1

    def nothing(_site: object, rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"target": torch.zeros_like(rows["target"])}

    with zerocon.replace(backbone.taps, "cross", "output", nothing):
        other = edit.sample(trajectory)
    assert (plain - other).abs().max() > 0.1
    # Fused attention again, whose last bits differ from those of recorded probabilities.
    torch.testing.assert_close(edit.sample(trajectory), plain, rtol=0, atol=1e-3)


def test_settings_are_composed_and_checked() -> None:
    settings = zerocon.compose(["method=pnp", "method.steps=7"])
    assert type(settings.method).__name__ == "PnP"
    assert settings.method.steps == 7
    with pytest.raises(ConfigError, match="is not a setting of a backbone"):
        zerocon.load("shapes", "method.steps=3")


def test_blend_words_keep_the_rest_of_the_picture(photo: Path) -> None:
    told: dict[str, Any] = {"source": SOURCE, "target": TARGET, "method": "p2p"}
    steps = ["method.steps=4", "method.blend_start=0", "method.blend_threshold=0.9"]
    backbone = zerocon.load("shapes")
    whole, kept = (
        np.asarray(zerocon.edit(photo, **told, overrides=steps, backbone=backbone, blend=words))
        for words in (None, ("circle", "circle"))
    )
    assert not np.array_equal(whole, kept)


@pytest.mark.parametrize(
    ("method", "more", "blend", "said"),
    [
        ("p2p", [], ("house", "circle"), "'house' is not in the source prompt"),
        ("p2p", [], ("circle", "house"), "'house' is not in the target prompt"),
        ("zerocon", [], ("circle", "circle"), "no effect with ZeroCon"),
        ("p2p", ["method.local_blend=false"], ("circle", "circle"), "no effect with P2P"),
        ("masactrl", ["method.masked=true"], None, "needs the edited words"),
    ],
)
def test_blend_words_without_effect_are_refused(
    photo: Path, method: str, more: list[str], blend: tuple[str, str] | None, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        zerocon.prepare(
            photo,
            source=SOURCE,
            target=TARGET,
            method=method,
            blend=blend,
            overrides=[*FEW, *more],
        )


def test_from_the_command_line(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["edit", str(photo), "--source", SOURCE, "--target", TARGET, "method=zerocon", *FEW])
    edit = Image.open(photo.with_name("photo-edited.png"))
    both = Image.open(photo.with_name("photo-edited-side-by-side.png"))
    assert edit.size == (64, 64)
    assert both.size == (5 * 130, 5 * 64)
    assert np.array_equal(np.array(both)[::5, ::5][:, -64:], np.array(edit))
    assert "photo-edited.png" in capsys.readouterr().out
    swapped = ["--source", SOURCE, "--target", TARGET, "method=p2p", *FEW]
    main(["edit", str(photo), *swapped])
    assert "--blend OLD NEW" in capsys.readouterr().out
    main(["edit", str(photo), "--blend", "circle", "circle", *swapped])
    assert "--blend" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"no picture", None])
def test_the_file_is_checked_before_the_models_load(
    photo: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
) -> None:
    def load(_: object) -> None:
        raise AssertionError("the models were loaded")

    monkeypatch.setattr("zerocon.backbones.shapes.Shapes.load", load)
    if content is None:
        photo.unlink()
    else:
        photo.write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        main(["edit", str(photo), "--source", SOURCE, "--target", TARGET, *FEW])
    said = capsys.readouterr().err
    assert str(photo) in said
    assert "dataset" not in said


def test_a_link_to_a_picture_is_read(photo: Path) -> None:
    folder = photo.parent / "links"
    folder.mkdir()
    (folder / "link.png").symlink_to(photo)
    assert opened(folder / "link.png").size == Image.open(photo).size


def test_pictures_of_another_size_or_world_are_remarked_on(photo: Path) -> None:
    shapes = opened(photo).resize((64, 64))
    assert remarks(shapes, Size.square(64), "shapes") == []
    (said,) = remarks(shapes.resize((200, 128)), Size.square(64), "shapes")
    assert "200 × 128 pixels, the model works on 64 × 64: its centre square is scaled" in said
    (said,) = remarks(shapes.resize((32, 32)), Size.square(64), "photographs")
    assert "it is enlarged to that" in said
    wide = Size(32, 64)
    (said,) = remarks(shapes, wide, "photographs")
    assert "64 × 64 pixels, the model works on 64 × 32: its centre is cut out" in said
    (said,) = remarks(shapes.resize((128, 64)), wide, "photographs")
    assert "it is scaled down to that" in said
    assert remarks(shapes.resize((64, 32)), wide, "photographs") == []
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (said,) = remarks(Image.fromarray(noise), Size.square(64), "shapes")
    assert "does not look like the shapes world" in said
    assert remarks(Image.fromarray(noise), Size.square(64), "photographs") == []


def test_every_kind_of_the_worlds_pictures_looks_like_it() -> None:
    house = Thing("house", "yellow", "dotted", "big", "solid", "tilted", 0.4, 0.5)
    for style, background in product(STYLES, BACKGROUNDS):
        scene = Scene((house,), background, style, 0.5)
        assert looks_like_shapes(render(scene)), (style, background)


def test_missing_inputs_have_messages(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="target prompt is empty"):
        zerocon.edit(photo, source=SOURCE, target=" ", overrides=FEW)
    photo.write_bytes(b"no picture")
    with pytest.raises(SystemExit, match="2"):
        main(["edit", str(photo), "--source", SOURCE, "--target", TARGET, *FEW])
    assert "photo.png" in capsys.readouterr().err


def test_costs_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["bench", "--count", "word_swap", "zerocon", "--overrides", "method.steps=2"])
    printed = capsys.readouterr().out
    # Inversion, forward, backward, all of them, sum of the method's, share of the published 400.
    assert printed.split("word_swap")[1].split()[:6] == ["2", "4", "0", "6", "4", "0.01"]
    assert printed.split("zerocon")[1].split()[:6] == ["2", "8", "2", "12", "10", "0.03"]


@pytest.mark.slow
def test_a_mask_bounds_the_edit(tmp_path: Path) -> None:
    picture = Image.open(Path(__file__).parents[1] / "docs" / "circle.png").convert("RGB")
    mask = Image.new("L", picture.size)
    mask.paste(255, (8, 8, 40, 56))
    prompts = {
        "source": "a big red circle on a gray background",
        "target": "a big blue circle on a gray background",
    }
    own = {"method": "kv_edit", "overrides": ["method.steps=2"]}
    edit = zerocon.prepare(picture, **prompts, mask=mask, **own)
    assert edit.case.mask is not None
    assert torch.equal(edit.case.mask[0], torch.from_numpy(light_mask(mask)).float())
    edited = edit.sample()
    assert torch.equal(edited[..., 11:], edit.clean[..., 11:])  # off the mask; of 16 columns
    assert not torch.allclose(edited[..., 4:8], edit.clean[..., 4:8], atol=0.1)
    with pytest.raises(ConfigError, match="KVEdit edits within a mask"):
        zerocon.prepare(picture, **prompts, **own)
    with pytest.raises(ConfigError, match="DDIM uses no mask"):
        zerocon.prepare(picture, **prompts, mask=mask, method="word_swap")
    other = Image.new("L", (64, 20))
    with pytest.raises(ConfigError, match="mask: 64x20 pixels do not have the same shape"):
        zerocon.prepare(picture, **prompts, mask=other, **own)
