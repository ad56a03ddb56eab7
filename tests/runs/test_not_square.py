"""Pictures that are not square, from files to numbers: on a U-Net and on a transformer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline
from PIL import Image

from tests.tiny import tiny_parts
from tests.tiny_transformers import tiny_sd3_parts
from zerocon.backbones.loading import Parts
from zerocon.cli import main
from zerocon.config.settings import compose_settings
from zerocon.core.cases import Case
from zerocon.core.size import Size
from zerocon.runs.counting import count_rows
from zerocon.runs.worker import edit

SOURCE, TARGET = "a big red circle on a gray background", "a big red star on a gray background"
SIZE = Size(32, 48)
METRICS = ["mixed_worlds=true", "metrics=full"]
FEW = ["method.steps=2", "runner.cache=0", "backbone.device=cpu"]


def save_sd15(folder: Path) -> None:
    parts: Any = tiny_parts(folder / "tokenizer")
    StableDiffusionPipeline(
        **{name: getattr(parts, name) for name in Parts.classes},
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def save_sd3(folder: Path) -> None:
    parts: Any = tiny_sd3_parts(folder / "tokens", num_layers=10)
    names = [*type(parts).classes]
    StableDiffusion3Pipeline(**{n: getattr(parts, n) for n in names}).save_pretrained(folder)


SAVE = {"sd15": save_sd15, "sd3": save_sd3}


@pytest.fixture(scope="module", params=SAVE)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides."""
    folder = tmp_path_factory.mktemp(request.param) / "model"
    folder.mkdir()
    SAVE[request.param](folder)
    sides = [f"backbone.height={SIZE.height}", f"backbone.width={SIZE.width}"]
    return [f"backbone={request.param}", f"backbone.path={folder}", *sides, *FEW]


def photo(folder: Path, name: str = "photo.png", seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((100, 90), Image.Resampling.BICUBIC).save(folder / name)
    return folder / name


def test_one_picture_from_the_command_line(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = photo(tmp_path)
    main(["edit", str(given), "--source", SOURCE, "--target", TARGET, *model])
    said = capsys.readouterr().err
    assert "100 × 90 pixels, the model works on 48 × 32: its centre is scaled down to that" in said
    edited = Image.open(tmp_path / "photo-edited.png")
    assert edited.size == (48, 32)
    both = Image.open(tmp_path / "photo-edited-side-by-side.png")
    assert both.size == (10 * (2 * 48 + 2), 10 * 32)
    assert np.array_equal(np.asarray(both)[::10, ::10][:, -48:], np.asarray(edited))


def test_a_mask_of_the_pictures_shape(model: list[str], tmp_path: Path) -> None:
    given, mask = photo(tmp_path), Image.new("L", (100, 90))
    mask.paste(255, (0, 0, 50, 90))  # the left half, also of its centre
    mask.save(tmp_path / "mask.png")
    told = ["--source", SOURCE, "--target", TARGET, "--mask", str(tmp_path / "mask.png")]
    main(["edit", str(given), *told, "method=kv_edit", *model])
    assert Image.open(tmp_path / "photo-edited.png").size == (48, 32)


@pytest.mark.slow
def test_a_run_over_a_folder_and_what_is_read_from_it(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for seed, name in enumerate(("a.png", "b.png")):
        photo(pictures, name, seed)
    dataset = [
        "dataset=folder", f"dataset.root={pictures}", f"dataset.source={SOURCE}",
        f"dataset.target={TARGET}",
    ]  # fmt: skip
    main(["run", *model, *dataset, *METRICS, f"runner.root={tmp_path}", "method=word_swap"])
    (run,) = tmp_path.glob("run-*")
    records = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    assert [record["status"] for record in records] == ["ok", "ok"], records
    for record in records:
        assert Image.open(run / record["image"]).size == (48, 32)
        for name in ("psnr_whole", "lpips_whole", "structure", "clip_whole", "dino_image"):
            assert np.isfinite(record["metrics"][name]), name
    assert (run / "gallery.html").is_file()
    capsys.readouterr()
    main(["verify", str(run)])
    assert "all as recorded" in capsys.readouterr().out
    main(["table", str(run)])
    assert "48×32" in capsys.readouterr().out


METHODS = [
    ["method=zerocon", "loss.cut.positions=background", "loss.n_patches=8"],
    ["method=p2p", "method.blend_threshold=0.8", "method.blend_start=0"],
    ["method=masactrl", "method.masked=true", "method.first_step=0", "method.mask_threshold=0.5"],
    ["method=pnp"],
    ["method=kv_edit", "method.fresh_start=true"],
    ["method=consistedit"],
    ["method=word_swap", "inversion=regularized"],
]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method[0])
def test_a_case_is_edited_alone_as_in_a_batch(model: list[str], method: list[str]) -> None:
    """With attention maps, local blends, masks and patches on grids that are not square."""
    settings = compose_settings([*model, *method, "direction=prompt_pair"], worlds="edit")
    backbone = settings.backbone.load()
    cases = [case(row, backbone.size) for row in range(3)]
    together = edit(settings, backbone, cases)
    assert together.shape == (3, 3, *SIZE)
    alone = edit(settings, backbone, cases[1:2])
    torch.testing.assert_close(alone, together[1:2], rtol=0, atol=1e-4)
    assert count_rows(settings, backbone).inversion >= 0


def case(row: int, size: Size) -> Case:
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(row))
    mask = torch.zeros(1, *size)
    mask[:, 4 * row : 24, 8:40] = 1
    blend = ("circle", "star")
    return Case(f"case {row}", image, SOURCE, TARGET, blend_words=blend, mask=mask)
