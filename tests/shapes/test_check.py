"""The packaged models are as good as docs/shapes.md says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zerocon.backbones.shapes import Shapes
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.weights import PACKAGED
from zerocon.directions.captioner import load_captioner
from zerocon.shapes import check
from zerocon.shapes.check_evaluators import caption_exact, clip_retrieval, distinct_scenes

SAID = json.loads((Path(__file__).parent.parent.parent / "docs" / "shapes_check.json").read_text())


@pytest.fixture(scope="module")
def backbone() -> StableDiffusionBackbone:
    return Shapes(device="cpu", dtype="float32").load()


def test_the_autoencoder(backbone: StableDiffusionBackbone) -> None:
    assert check.vae_psnr(backbone, distinct_scenes(60)) >= 34


def test_the_judge_finds_captions() -> None:
    # Among 300 it is easier than among the check's 1,000.
    assert clip_retrieval(300) >= 0.95


def test_the_generators_text_encoder_finds_captions(backbone: StableDiffusionBackbone) -> None:
    assert check.generator_retrieval(backbone, distinct_scenes(300)) >= 0.95


def test_captions() -> None:
    assert caption_exact(load_captioner(), 60) >= 0.95


@pytest.mark.slow
def test_the_reader_on_clean_pictures() -> None:
    assert check.reader_exact(60) == 1.0


@pytest.mark.slow
def test_inversion(backbone: StableDiffusionBackbone) -> None:
    found = check.inversion_psnr(backbone, distinct_scenes(4))
    assert found == pytest.approx(SAID["inversion_psnr"], abs=4)


def test_the_weights_stay_small() -> None:
    flow = size_of(PACKAGED / "flow")
    assert flow <= 30_000_000
    assert size_of(PACKAGED) - flow <= 60_000_000


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_whole_check_says_what_is_written() -> None:
    found = check.check(load_captioner())
    assert found.keys() == SAID.keys()
    for name, value in found.items():
        if name == "generation_attributes":
            assert value == pytest.approx(SAID[name], abs=0.03)
        elif name == "flow":
            said = SAID["flow"]
            drawn, inverted = value["generation_attributes"], value["inversion_psnr"]
            assert drawn == pytest.approx(said["generation_attributes"], abs=0.03)
            assert inverted == pytest.approx(said["inversion_psnr"], rel=0.02)
        else:
            assert value == pytest.approx(SAID[name], rel=0.02)
