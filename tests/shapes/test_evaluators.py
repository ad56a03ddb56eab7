"""The packaged captioner and evaluators: there, small, loadable by their own classes, and good."""

from __future__ import annotations

import open_clip
import pytest
import torch
from torch import Tensor
from transformers import BlipForConditionalGeneration, BlipProcessor, ViTModel

from zerocon.core.cases import Case
from zerocon.core.weights import folder_fingerprint
from zerocon.directions import captioner
from zerocon.directions.captioner import load_captioner
from zerocon.metrics import packaged
from zerocon.metrics.base import Pictures
from zerocon.metrics.clip import ClipScore
from zerocon.metrics.lpips import PerceptualDistance
from zerocon.metrics.structure import StructureDistance
from zerocon.shapes.captions import caption
from zerocon.shapes.check_evaluators import (
    caption_exact,
    clip_retrieval,
    distinct_scenes,
    lpips_order,
    pictures_of,
    structure_order,
)
from zerocon.shapes.scene import Scene

FOLDERS = (
    captioner.FOLDER,
    packaged.CLIP_FOLDER,
    packaged.STRUCTURE_FOLDER,
    packaged.LPIPS_FOLDER,
)


def cases_of(pictures: Tensor, scenes: list[Scene]) -> list[Case]:
    pairs = zip(pictures, scenes, strict=True)
    return [Case(str(i), p, "", caption(scene)) for i, (p, scene) in enumerate(pairs)]


def test_they_are_small() -> None:
    files = [file for folder in FOLDERS for file in folder.iterdir()]
    assert 1e6 < sum(file.stat().st_size for file in files) < 25e6


def test_they_judge_in_single_precision() -> None:
    models = (
        load_captioner().model,
        packaged.load_clip().model,
        packaged.load_structure(),
        packaged.load_lpips(),
    )
    for model in models:
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert not any(p.requires_grad for p in model.parameters())
        assert not model.training


def test_fingerprints_differ_and_stay() -> None:
    digests = [folder_fingerprint(folder) for folder in FOLDERS]
    assert len(set(digests)) == len(FOLDERS)
    assert digests == [folder_fingerprint(folder) for folder in FOLDERS]


def test_plain_transformers_loads_the_captioner() -> None:
    model = BlipForConditionalGeneration.from_pretrained(captioner.FOLDER)
    processor = BlipProcessor.from_pretrained(captioner.FOLDER)
    pictures = pictures_of(distinct_scenes(2))
    pixels = processor(images=list((pictures * 255).round().byte()), return_tensors="pt")
    tokens = model.generate(**pixels, max_new_tokens=40, num_beams=1)
    said = [t.strip() for t in processor.batch_decode(tokens, skip_special_tokens=True)]
    assert said == load_captioner()(pictures)


def test_plain_transformers_loads_the_structure_encoder() -> None:
    vit = ViTModel.from_pretrained(packaged.STRUCTURE_FOLDER, add_pooling_layer=False)
    assert vit.config.image_size == 64


def test_plain_open_clip_loads_the_clip() -> None:
    name = f"local-dir:{packaged.CLIP_FOLDER}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    tokenize = open_clip.get_tokenizer(name)
    ours, pictures = packaged.load_clip(), pictures_of(distinct_scenes(2))
    model.eval()
    with torch.no_grad():
        images = model.encode_image(2 * pictures - 1)
        texts = model.encode_text(tokenize(["a big red circle in a meadow"]))
    assert preprocess is not None
    torch.testing.assert_close(ours.images(pictures), images)
    torch.testing.assert_close(ours.texts(["a big red circle in a meadow"]), texts)


def test_the_packaged_models_reach_their_goals() -> None:
    assert caption_exact(load_captioner(), 60) >= 0.9
    assert clip_retrieval(200) >= 0.95
    assert structure_order(60) >= 0.8
    assert lpips_order(160) >= 0.95


def test_the_right_caption_scores_higher() -> None:
    scenes = distinct_scenes(6)[::2]  # neighbours differ in one word
    pictures = pictures_of(scenes)
    better, worse = (
        ClipScore()(Pictures.of(cases_of(pictures, told), pictures))["clip_whole"]
        for told in (scenes, [*scenes[1:], scenes[0]])
    )
    assert (better > worse + 10).all(), (better, worse)


def test_distances_of_equal_pictures_are_zero() -> None:
    scenes = distinct_scenes(2)
    pictures = pictures_of(scenes)
    batch = Pictures.of(cases_of(pictures, scenes), pictures)
    # Their two copies may lie differently in memory, and then sums are taken in another order.
    assert StructureDistance()(batch)["structure"].tolist() == pytest.approx([0, 0], abs=1e-9)
    assert PerceptualDistance()(batch)["lpips_whole"].tolist() == pytest.approx([0, 0], abs=1e-6)
