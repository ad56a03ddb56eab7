"""The shapes in annotations are checked in tests, and a wrong one is named."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from zerocon.core.word_maps import marks, word_map
from zerocon.losses.cross_attention import cross_attention_loss
from zerocon.losses.patch_nce import patch_nce


def test_another_number_of_patches_is_found() -> None:
    with pytest.raises(TypeCheckError, match="case patch width"):
        patch_nce(torch.zeros(2, 4, 8), torch.zeros(2, 5, 8))


def test_another_order_of_axes_is_found() -> None:
    with pytest.raises(TypeCheckError, match="case patch"):
        patch_nce(torch.zeros(2, 4, 8), torch.zeros(2, 4, 8), weight=torch.ones(4, 2))


def test_another_number_of_cases_is_found() -> None:
    with pytest.raises(TypeCheckError, match="case _head _position token"):
        cross_attention_loss([torch.zeros(2, 1, 4, 7)], [torch.zeros(1, 1, 4, 7)])


def test_maps_of_other_prompts_are_found() -> None:
    with pytest.raises(TypeCheckError, match="case marked"):
        word_map([torch.zeros(1, 2, 4, 7)], marks([[1], [2]]), (2, 2))
