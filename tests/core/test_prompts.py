"""Token alignment and schedules of Prompt-to-Prompt, against values computed by hand."""

from __future__ import annotations

import pytest
import torch

from zerocon.core.cases import CaseError
from zerocon.core.prompts import (
    Alignment,
    aligned,
    changed_positions,
    refined,
    replaced,
    word_schedule,
)

START, END = 90, 91


def test_a_word_of_more_tokens_shares_the_map_of_the_one_it_replaces() -> None:
    # "a cat runs" -> "a hedge|hog runs"
    mapper = replaced([(1,), (2,), (3,)], [(1,), (4, 5), (3,)], length=7).mapper
    expected = torch.zeros(7, 7, dtype=torch.float64)
    expected[0, 0] = expected[1, 1] = 1  # start, "a"
    expected[2, 2] = expected[2, 3] = 0.5
    for place in (4, 5, 6):  # published: from here by the target's places
        expected[place, place] = 1
    assert torch.equal(mapper, expected)


def test_a_word_of_fewer_tokens_gets_all_their_maps_together() -> None:
    mapper = replaced([(1,), (4, 5), (3,)], [(1,), (2,), (3,)], length=7).mapper
    expected = torch.zeros(7, 7, dtype=torch.float64)
    expected[0, 0] = expected[1, 1] = 1
    expected[2, 2] = expected[3, 2] = 1
    for place in (3, 4, 5):  # stops when the source's places run out
        expected[place, place] = 1
    assert torch.equal(mapper, expected)


def test_between_replaced_words_tokens_keep_their_partners() -> None:
    # The middle word moves by one place, since the first one grew.
    mapper = replaced([(1,), (2,), (3,)], [(4, 5), (2,), (6,)], length=6).mapper
    assert mapper[1, 1] == mapper[1, 2] == 0.5
    assert mapper[2, 3] == 1
    assert mapper[3, 4] == 1
    assert mapper[:, 5].tolist() == [0, 0, 0, 0, 0, 1]


def test_words_with_equal_numbers_of_tokens_are_paired_by_token() -> None:
    mapper = replaced([(1, 2)], [(3, 4)], length=4).mapper
    assert torch.equal(mapper, torch.eye(4, dtype=torch.float64))


def test_replacing_needs_equal_numbers_of_words() -> None:
    with pytest.raises(CaseError, match=r"1 words and the target prompt 2.*edit=refine"):
        replaced([(1,)], [(1,), (2,)])


@pytest.mark.parametrize(
    ("source", "target", "origins"),
    [
        ((1, 2, 3), (1, 2, 3), [0, 1, 2]),
        ((1, 2, 3), (1, 9, 2, 3), [0, None, 1, 2]),
        ((1, 2, 3, 4), (1, 4), [0, 3]),
        ((1, 2, 3), (1, 9, 3), [0, None, 2]),
        ((1, 2, 3), (7, 8), [None, None]),
        # Two alignments are equally good; as published, the earlier of the equal tokens is paired.
        ((5, 1), (5, 5, 1), [0, None, 1]),
    ],
)
def test_aligned_tokens(
    source: tuple[int, ...], target: tuple[int, ...], origins: list[int | None]
) -> None:
    assert aligned(source, target) == origins


def test_new_tokens_keep_their_maps_and_padding_its_places() -> None:
    # "a cat" -> "a fat cat"
    alignment = refined((START, 1, 2, END), (START, 1, 7, 2, END), length=8)
    assert alignment.own.tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    taken = {(int(i), int(j)) for i, j in alignment.mapper.nonzero()}
    assert taken == {(0, 0), (1, 1), (2, 3), (3, 4), (5, 5), (6, 6), (7, 7)}


def test_schedules_count_one_step_more_as_published() -> None:
    alphas = word_schedule(50, (0.0, 0.4), {3: (0.0, 0.8), 5: (0.5, 1.0)}, length=6)
    assert alphas.shape == (50, 6)
    assert alphas[:, 0].nonzero().flatten().tolist() == list(range(20))  # int(0.4 * 51)
    assert alphas[:, 3].nonzero().flatten().tolist() == list(range(40))
    assert alphas[:, 5].nonzero().flatten().tolist() == list(range(25, 50))


@pytest.mark.parametrize(
    ("source", "target", "changed"),
    [
        ((START, 1, 2, 3, END), (START, 1, 9, 3, END), [2]),
        ((START, 1, 2, 3, END), (START, 1, 3, END), [2]),
        # Only words are added: all of the source's words, without start and end.
        ((START, 1, 2, 3, END), (START, 1, 2, 7, 3, END), [1, 2, 3]),
        ((START, 1, 2, 3, END), (START, 1, 2, 3, END), [1, 2, 3]),
    ],
)
def test_changed_positions(
    source: tuple[int, ...], target: tuple[int, ...], changed: list[int]
) -> None:
    assert changed_positions(source, target) == changed


def test_tokens_of_another_encoder_keep_their_own_maps() -> None:
    alignment = refined((START, 1, 2, END), (START, 1, 3, END), length=6).widened(8)
    source, target = torch.rand(2, 1, 3, 4, 8)
    stacked = Alignment(alignment.mapper[None], alignment.own[None])
    found = stacked.applied(source, target)
    own = torch.tensor([False, False, True, False, False, False, True, True])
    torch.testing.assert_close(found, torch.where(own, target, source))
