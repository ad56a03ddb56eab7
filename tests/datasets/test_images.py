from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

from zerocon.core.cases import CaseError
from zerocon.core.size import Size
from zerocon.datasets import images
from zerocon.datasets.images import (
    decode_rle,
    light_mask,
    mask_tensor,
    picture_tensor,
    read_image,
    resize_mask,
    runs_beyond,
    with_border,
)

OF_8 = Size.square(8)
OF_16 = Size.square(16)
RED = (200, 40, 30)


def saved(folder: Path, image: Image.Image, name: str = "a.png", **options: object) -> str:
    image.save(folder / name, **options)  # pyright: ignore[reportArgumentType]
    return name


def test_a_plain_picture_comes_back_exactly(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    tensor, notes = read_image(saved(tmp_path, Image.fromarray(pixels)), tmp_path, Size.square(64))
    assert tensor.dtype == torch.float32
    assert notes == ()
    assert np.array_equal((tensor * 255).round().byte().permute(1, 2, 0).numpy(), pixels)


def test_the_middle_square_is_averaged_down(tmp_path: Path) -> None:
    pixels = np.zeros((128, 200, 3), dtype=np.uint8)
    pixels[:, 36:164] = np.arange(128, dtype=np.uint8)[:, None, None]
    tensor, _ = read_image(saved(tmp_path, Image.fromarray(pixels)), tmp_path, Size.square(64))
    expected = (np.arange(64) * 2 + 1).astype(np.float32) / 255  # halves round up
    assert np.array_equal(tensor[0], np.repeat(expected[:, None], 64, axis=1))


@pytest.mark.parametrize(
    ("mode", "color", "note"),
    [("L", 90, None), ("P", 3, None), ("1", 1, None), ("CMYK", (0, 200, 200, 40), "CMYK")],
)
def test_other_modes_are_converted(
    tmp_path: Path, mode: str, color: object, note: str | None
) -> None:
    image = Image.new(mode, (32, 32), color)  # pyright: ignore[reportArgumentType]
    name = saved(tmp_path, image, "a.tif" if mode == "CMYK" else "a.png")
    tensor, notes = read_image(name, tmp_path, OF_16)
    assert tensor.shape == (3, 16, 16)
    assert notes == (() if note is None else (f"converted from {note} to RGB",))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_lie_over_white(tmp_path: Path, mode: str) -> None:
    color = (0, 0, 0, 51) if mode == "RGBA" else (0, 51)
    name = saved(tmp_path, Image.new(mode, (8, 8), color))
    tensor, notes = read_image(name, tmp_path, OF_8)
    assert torch.allclose(tensor, torch.tensor(0.8), atol=1 / 255)
    assert notes == ("transparent parts were laid over white",)


def test_a_palettes_transparent_entry_lies_over_white(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 0, 0, 0])
    tensor, notes = read_image(saved(tmp_path, image, transparency=0), tmp_path, OF_8)
    assert (tensor == 1).all()
    assert notes == ("transparent parts were laid over white",)


def test_sixteen_bits_are_scaled_not_cut(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((8, 8), 257 * 100, dtype=np.uint16))
    tensor, notes = read_image(saved(tmp_path, image), tmp_path, OF_8)
    assert torch.allclose(tensor, torch.tensor(100 / 255))
    assert notes == ("16 bits a pixel were scaled to 8",)


def test_exif_orientation_is_followed(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16), "white")
    image.paste(RED, (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is on the right
    tensor, notes = read_image(saved(tmp_path, image, exif=exif), tmp_path, OF_16)
    assert torch.allclose(tensor[:, :, -1], torch.tensor(RED)[:, None] / 255)
    assert notes == ("turned upright by its EXIF orientation",)


def test_the_first_frame_of_an_animation_is_used(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, "blue")]
    name = saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    tensor, notes = read_image(name, tmp_path, OF_8)
    assert torch.allclose(tensor[:, 0, 0], torch.tensor(RED) / 255, atol=0.02)
    assert notes == ("animated: the first frame was used",)


def test_damaged_files_have_distinct_messages(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    saved(tmp_path, Image.fromarray(pixels), "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("a cat")
    for name, message in (
        ("cut.png", "image cut.png: the file is damaged or cut short"),
        ("empty.png", "image empty.png: the file is empty"),
        ("text.png", "image text.png: this is not a picture"),
        ("none.png", "image none.png: there is no such file"),
    ):
        with pytest.raises(CaseError, match=message):
            read_image(name, tmp_path, OF_16)


def test_a_picture_that_is_too_big_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = saved(tmp_path, Image.new("RGB", (64, 64)))
    monkeypatch.setattr(images, "MOST_PIXELS", 4000)
    with pytest.raises(CaseError, match="more than 0 million pixels"):
        read_image(name, tmp_path, OF_16)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(CaseError, match="make it smaller"):
        read_image(name, tmp_path, OF_16)


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    name = saved(tmp_path, Image.new("F", (8, 8)), "a.tif")
    with pytest.raises(CaseError, match=r"mode F can't be used; save it as 8-bit RGB"):
        read_image(name, tmp_path, OF_8)


def test_paths_stay_in_their_folder(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    saved(tmp_path, Image.new("RGB", (8, 8)), "secret.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    for path in ("../secret.png", "link.png"):
        with pytest.raises(CaseError, match="leads out of the dataset's folder"):
            read_image(path, root, OF_8)
    with pytest.raises(CaseError, match="must be relative"):
        read_image(str(tmp_path / "secret.png"), root, OF_8)


def test_run_lengths_are_decoded_row_by_row() -> None:
    mask = decode_rle([1, 2, 5, 1], 2, 3)
    assert mask.tolist() == [[0, 1, 1], [0, 0, 1]]
    assert decode_rle([], 2, 3).sum() == 0


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ([1, 2, 3], "3 numbers; starts and lengths must come in pairs"),
        ([0, 1, -1, 2], r"run 1 is \(-1, 2\); none may be negative"),
        ([0, 1, 5, 2], r"run 1 is \(5, 2\); it ends beyond the 2x3 = 6 pixels"),
        ([0, 1.5], "entry 1 is 1.5; it must be a whole number"),
        ([True, 1], "entry 0 is True"),
        ("0 1", "expected a list of whole numbers, got str"),
    ],
)
def test_malformed_run_lengths_say_where(flat: object, message: str) -> None:
    with pytest.raises(CaseError, match=message):
        decode_rle(flat, 2, 3)


def test_masks_follow_their_pictures() -> None:
    mask = np.zeros((512, 512), dtype=np.uint8)
    mask[:, :12] = 1  # one and a half pixels of 64
    small = resize_mask(mask, Size.square(64))
    assert small.shape == (1, 64, 64)
    assert small[0, :, :2].all()
    assert not small[0, :, 2:].any()


def test_the_border_belongs_to_the_edit() -> None:
    mask = np.zeros((4, 5), dtype=np.uint8)
    mask[1, 2] = 1
    assert with_border(mask).tolist() == [
        [1, 1, 1, 1, 1],
        [1, 0, 1, 0, 1],
        [1, 0, 0, 0, 1],
        [1, 1, 1, 1, 1],
    ]


@pytest.mark.parametrize(("kind", "said"), [(2, "with a sign "), (1, "")])
def test_32_bits_are_refused_and_not_clipped(tmp_path: Path, kind: int, said: str) -> None:
    name = saved(tmp_path, Image.fromarray(np.full((8, 8), 70_000, dtype=np.int32)), "a.tif")
    tag = b"\x53\x01\x03\x00\x01\x00\x00\x00"  # the sample format: one short number
    data = (tmp_path / name).read_bytes()
    assert tag + b"\x02" in data
    (tmp_path / name).write_bytes(data.replace(tag + b"\x02", tag + bytes([kind])))
    message = (
        f"image a.tif: 32 bits a pixel {said}can't be used, because the value of white is unknown"
    )
    with pytest.raises(CaseError, match=message):
        read_image(name, tmp_path, OF_8)


def test_16_bits_in_a_tiff_are_scaled(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((8, 8), 257 * 100, dtype=np.uint16))
    tensor, notes = read_image(saved(tmp_path, image, "a.tif"), tmp_path, OF_8)
    assert torch.allclose(tensor, torch.tensor(100 / 255))
    assert notes == ("16 bits a pixel were scaled to 8",)


@pytest.mark.parametrize("orientation", [0, 9, 700])
def test_an_exif_orientation_that_does_not_exist_is_noted(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (16, 16), "white")
    image.paste(RED, (0, 0, 16, 8))
    tensor, notes = read_image(saved(tmp_path, image, exif=exif), tmp_path, OF_16)
    assert torch.allclose(tensor[:, 0], torch.tensor(RED)[:, None] / 255)
    assert notes == (f"its EXIF orientation {orientation} is invalid: it was not turned",)


def test_an_upright_orientation_is_not_noted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    assert read_image(saved(tmp_path, Image.new("RGB", (8, 8)), exif=exif), tmp_path, OF_8)[1] == ()


def test_a_transparent_color_lies_over_white(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), "blue")
    image.paste(RED, (0, 0, 8, 4))
    tensor, notes = read_image(saved(tmp_path, image, transparency=(0, 0, 255)), tmp_path, OF_8)
    assert (tensor[:, 4:] == 1).all()
    assert torch.allclose(tensor[:, 0], torch.tensor(RED)[:, None] / 255)
    assert notes == ("transparent parts were laid over white",)


def test_a_transparent_16_bit_gray_lies_over_white(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), dtype=np.uint16)
    pixels[4:] = 257 * 100
    image = Image.fromarray(pixels)
    image.info["transparency"] = 257 * 100
    tensor, notes = read_image(saved(tmp_path, image, transparency=257 * 100), tmp_path, OF_8)
    assert (tensor[:, 4:] == 1).all()
    assert (tensor[:, :4] == 0).all()
    assert "transparent parts were laid over white" in notes


def test_a_run_beyond_the_picture_is_cut_where_that_is_asked_for() -> None:
    flat = [4, 10, 9, 2]  # of 6 pixels: the second run lies beyond it altogether
    assert decode_rle(flat, 2, 3, cut=True).tolist() == [[0, 0, 0], [0, 1, 1]]
    assert runs_beyond(flat, 6) == 2
    with pytest.raises(CaseError, match="it ends beyond"):
        decode_rle(flat, 2, 3)


@pytest.mark.parametrize(("size", "box"), [
    (Size(12, 20), (0, 14, 120, 86)),  # left, top, right, bottom of what is kept
    (Size(20, 12), (30, 0, 90, 100)),
    (Size(20, 24), (0, 0, 120, 100)),
    (Size(20, 20), (10, 0, 110, 100)),
])  # fmt: skip
def test_the_centre_with_the_wanted_aspect_ratio_is_kept(
    size: Size, box: tuple[int, int, int, int]
) -> None:
    """Of the picture and of its mask, at whatever resolution the mask is."""
    image = Image.new("RGB", (120, 100))
    image.paste("white", box)
    tensor = picture_tensor(image, size)
    assert tensor.shape == (3, *size)
    assert (tensor == 1).all()
    outside = ImageChops.invert(image.resize((240, 200), Image.Resampling.NEAREST))
    assert not mask_tensor(light_mask(outside), size, image).any()
    moved = Image.new("RGB", image.size)
    moved.paste("white", (box[0] + 12, box[1], box[2], box[3]))
    assert not picture_tensor(moved, size)[:, :, 0].any()
    half = Image.new("L", image.size)
    half.paste(255, (0, 0, 60, 100))
    mask = mask_tensor(light_mask(half), size, image)[0]
    assert mask[:, : size.width // 2].all()
    assert not mask[:, size.width // 2 :].any()
