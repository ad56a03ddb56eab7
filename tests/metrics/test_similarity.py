from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from metric_pictures import batch, noise
from torch import Tensor

from zerocon.metrics.base import Pictures
from zerocon.metrics.similarity import ClipChange, DinoSimilarity, directional_similarity

WORDS = {"red": (1.0, 0, 0), "green": (0, 1.0, 0), "gray": (1.0, 1.0, 1.0)}


class Colors:
    """A 'CLIP' whose space is RGB."""

    fingerprint = "colors"

    def images(self, pictures: Tensor) -> Tensor:
        return pictures.mean((2, 3))

    def texts(self, sentences: Sequence[str]) -> Tensor:
        return torch.tensor([WORDS[sentence] for sentence in sentences])

    def too_long(self, sentence: str) -> bool:
        return False


def plain(*color: float) -> Tensor:
    return torch.tensor(color)[None, :, None, None].expand(1, 3, 16, 16).contiguous()


def asked(source: Tensor, edited: Tensor, before: str, after: str) -> Pictures:
    pictures = batch(source, edited)
    cases = [
        dataclasses.replace(case, source_prompt=before, target_prompt=after)
        for case in pictures.cases
    ]
    return Pictures.of(cases, edited)


RED, GREEN, GRAY = plain(0.8, 0, 0), plain(0, 0.8, 0), plain(0.5, 0.5, 0.5)


def scores(source: Tensor, edited: Tensor, before: str, after: str) -> dict[str, float]:
    found = ClipChange(encoder=Colors())(asked(source, edited, before, after))
    return {name: values.item() for name, values in found.items()}


def test_the_requested_edit() -> None:
    found = scores(RED, GREEN, "red", "green")
    assert found["clip_direction"] == pytest.approx(1)
    assert found["clip_accuracy"] == 1
    assert found["clip_image"] == pytest.approx(0, abs=1e-7)


def test_the_opposite_edit() -> None:
    found = scores(GREEN, RED, "red", "green")
    assert found["clip_direction"] == pytest.approx(-1)
    assert found["clip_accuracy"] == 0


def test_a_partial_edit_by_hand() -> None:
    """Red to gray where green was asked: (u-r)·(g-r) with u = (1,1,1)/√3."""
    u = 1 / math.sqrt(3)
    wanted = (-(u - 1) + u) / (math.sqrt((u - 1) ** 2 + 2 * u**2) * math.sqrt(2))
    found = scores(RED, GRAY, "red", "green")
    assert found["clip_direction"] == pytest.approx(wanted, rel=1e-6)
    assert found["clip_accuracy"] == 0  # as near to either; "nearer" is asked for
    assert found["clip_image"] == pytest.approx(u, rel=1e-6)


def test_an_unchanged_picture_has_no_direction() -> None:
    found = scores(RED, RED, "red", "green")
    assert found["clip_direction"] == 0
    assert found["clip_accuracy"] == 0
    assert found["clip_image"] == pytest.approx(1)


@pytest.mark.parametrize("before", ["", "green"])
def test_without_a_change_of_words_the_value_is_nan(before: str) -> None:
    WORDS[""] = (0, 0, 1.0)
    found = scores(RED, GREEN, before, "green")
    assert math.isnan(found["clip_direction"])
    assert math.isnan(found["clip_accuracy"])
    assert found["clip_image"] == pytest.approx(0, abs=1e-7)


def test_directions_of_known_vectors() -> None:
    a, b = torch.tensor([[2.0, 0]]), torch.tensor([[0, 3.0]])
    assert directional_similarity((a, b), (b, a)).item() == pytest.approx(-1)
    assert directional_similarity((a, b), (a, a)).isnan().all()


def test_dino_similarity_of_a_picture_with_itself_is_one() -> None:
    a = noise(2)
    assert DinoSimilarity()(batch(a, a))["dino_image"].tolist() == pytest.approx([1, 1])
    assert (DinoSimilarity()(batch(a, noise(2, seed=1)))["dino_image"] < 0.9999).all()
