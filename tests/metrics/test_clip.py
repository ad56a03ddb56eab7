from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from metric_pictures import Unwrapped, batch, left_half, noise
from torch import Tensor
from torchmetrics.functional.multimodal import clip_score as their_clip_score

from zerocon.metrics.clip import ClipScore
from zerocon.metrics.encoders import PublishedClip, as_uint8


class MeanColor:
    """A 'CLIP' whose space is RGB: a prompt wants the colour (1, 0, 0)."""

    fingerprint = "mean color"

    def images(self, pictures: Tensor) -> Tensor:
        return pictures.mean((2, 3))

    def texts(self, sentences: Sequence[str]) -> Tensor:
        return torch.tensor([[1.0, 0.0, 0.0]]).repeat(len(sentences), 1)

    def too_long(self, sentence: str) -> bool:
        return len(sentence) > 100


def test_the_score_is_a_hundred_times_the_cosine() -> None:
    red = torch.zeros(1, 3, 64, 64)
    red[:, 0] = 0.8
    scores = ClipScore(encoder=MeanColor())(batch(red, red, left_half()))
    assert scores["clip_whole"].item() == pytest.approx(100)
    gray = torch.full((1, 3, 64, 64), 0.5)
    scores = ClipScore(encoder=MeanColor())(batch(gray, gray, left_half()))
    assert scores["clip_whole"].item() == pytest.approx(100 / 3**0.5, rel=1e-5)


def test_a_negative_cosine_counts_as_zero() -> None:
    class Opposite(MeanColor):
        def images(self, pictures: Tensor) -> Tensor:
            return -super().images(pictures)

    pictures = batch(noise(1), noise(1), left_half())
    assert ClipScore(encoder=Opposite())(pictures)["clip_whole"].item() == 0


def test_the_edited_score_looks_at_the_region_only() -> None:
    half_red = torch.zeros(1, 3, 64, 64)
    half_red[:, 0, :, :32] = 1
    half_red[:, 1, :, 32:] = 1
    scores = ClipScore(encoder=MeanColor())(batch(half_red, half_red, left_half()))
    assert scores["clip_edited"].item() == pytest.approx(100)
    assert scores["clip_whole"].item() == pytest.approx(100 / 2**0.5, rel=1e-5)


@pytest.mark.parametrize("mask", [None, torch.zeros(1, 64, 64)])
def test_without_a_region_the_score_is_nan(mask: Tensor | None) -> None:
    scores = ClipScore(encoder=MeanColor())(batch(noise(1), noise(1), mask))
    assert scores["clip_edited"].isnan().item()
    assert not scores["clip_whole"].isnan().item()


def test_agrees_with_torchmetrics(tiny_clip: str) -> None:
    a = noise(2)
    encoder = PublishedClip(tiny_clip)
    scores = ClipScore(encoder=encoder)(batch(a, a, left_half()))
    for i in range(2):
        wanted = their_clip_score(
            as_uint8(a[i : i + 1])[0],
            "a square",
            lambda: (Unwrapped(encoder.model), encoder.processor),
        )
        assert isinstance(wanted, Tensor)
        assert scores["clip_whole"][i].item() == pytest.approx(max(0, wanted.item()), abs=1e-3)


def test_a_long_prompt_is_cut_and_its_case_named(
    tiny_clip: str, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = PublishedClip(tiny_clip)
    long = "a red circle " * 60
    assert encoder.too_long(long)
    torch.testing.assert_close(encoder.texts([long]), encoder.texts([long + "in a meadow"]))
    pictures = batch(noise(1), noise(1), left_half())
    object.__setattr__(pictures.cases[0], "target_prompt", long)
    with caplog.at_level(logging.WARNING):
        ClipScore(encoder=encoder)(pictures)
    assert "case-0" in caplog.text


def test_a_hub_model_needs_a_revision() -> None:
    with pytest.raises(ValueError, match="needs a `revision`"):
        ClipScore(path="openai/clip-vit-large-patch14")


def test_fingerprint_is_of_the_weights(tiny_clip: str, tmp_path: Path) -> None:
    assert len(ClipScore(path=tiny_clip).fingerprint) == 16
