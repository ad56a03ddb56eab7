"""Attention maps of words and their masks, against values computed by hand."""

from __future__ import annotations

import torch

from zerocon.core.word_maps import blend_mask, marks, within, word_map


def test_a_map_is_the_marked_words_attention_over_heads_and_layers() -> None:
    maps = torch.arange(1 * 2 * 4 * 3, dtype=torch.float32).reshape(1, 2, 4, 3)
    found = word_map([maps, 3 * maps], marks([[0, 2]]), (2, 2))
    # Position p of head h has 12 h + 3 p + (0, 1, 2); words 0 and 2: 24 h + 6 p + 2.
    per_layer = torch.tensor([[14.0, 20.0], [26.0, 32.0]])  # mean over the heads: 6 p + 14
    assert torch.equal(found, (2 * per_layer)[None, None])  # mean of 1 x and 3 x
    alone = word_map([maps], marks([[0, 2]]), (2, 2))
    assert torch.equal(alone, per_layer[None, None])


def test_the_mask_is_where_either_map_is_large() -> None:
    source, target = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    source[0, 0, 0, 0], target[0, 0, 7, 7], target[0, 0, 0, 7] = 2.0, 1.0, 0.3
    mask = blend_mask(source, target, 0.3, (16, 16))[0, 0]
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[:4, :4] = True  # widened by one position, each position two of the latent's
    expected[-4:, -4:] = True  # 0.3 of the largest is not more than the threshold
    assert torch.equal(mask, expected)


def test_maps_of_zeros_give_a_full_mask() -> None:
    none = torch.zeros(2, 1, 4, 4)
    source = none.clone()
    source[1, 0, 0, 0] = 1.0
    mask = blend_mask(source, none, 0.3, (4, 4))
    assert mask[0].all()
    assert mask[1].sum() == 4


def test_attention_among_the_kept_keeps_its_share() -> None:
    """In joint attention the rest goes to text tokens; in a U-Net the share is 1."""
    probs = torch.tensor([0.1, 0.2, 0.3]).expand(1, 1, 3, 3)
    kept = torch.tensor([[True, False, True]]).expand(3, 3)[None, None]
    found = within(probs, kept)
    torch.testing.assert_close(found[0, 0, 0], torch.tensor([0.15, 0.0, 0.45]))


def test_a_condition_may_have_more_tokens_than_the_words() -> None:
    maps = torch.rand(1, 2, 4, 9, generator=torch.Generator().manual_seed(0))
    found = word_map([maps], marks([[0, 2]]), (2, 2))
    torch.testing.assert_close(found[0, 0].flatten(), (maps[..., 0] + maps[..., 2])[0].mean(0))
