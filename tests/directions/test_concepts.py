"""The edited concept, found from words: expectations by hand, and from the shapes world."""

from __future__ import annotations

import pytest

from zerocon.directions.concepts import changes, concepts, join, split, substituted
from zerocon.directions.templates import PHOTO, photo_sentences
from zerocon.shapes.benchmark import edit as edit_of
from zerocon.shapes.captions import CaptionError, caption, parse
from zerocon.shapes.scene import THING_ATTRIBUTES
from zerocon.shapes.sentences import in_place, shapes_sentences


@pytest.mark.parametrize(
    ("source", "target", "sentence", "expected"),
    [
        ("a cat", "a dog", "a cat on a mat", "a dog on a mat"),
        # Punctuation and case are not part of a word.
        ("A cat, asleep", "A dog, asleep", "a sleeping Cat, on a mat.",
         "a sleeping dog, on a mat."),
        # Of two candidates, the one in known surroundings.
        ("a red hat and a red coat", "a red hat and a blue coat", "a red coat and a red hat",
         "a blue coat and a red hat"),
        # Other words for the same, where the words around are the same.
        ("a large red ball", "a small red ball", "a big red ball in a box",
         "a small red ball in a box"),
        # An insertion may go by what stands on one side.
        ("a man", "a man with glasses", "a man in a room", "a man with glasses in a room"),
        ("a man with a hat", "a man", "a man with a hat in a room", "a man in a room"),
        # Several places.
        ("a red cat on a mat", "a blue cat on a bed", "one red cat on a mat",
         "one blue cat on a bed"),
        ("a cat", "a cat", "a cat on a mat", "a cat on a mat"),
        # Nothing of it in the sentence.
        ("a cat on a mat", "a dog on a mat", "some flowers in a vase", None),
        ("a man with a hat in a room", "a man in a room", "a man in a room", None),
        ("a cat", "a dog", "", None),
    ],
)  # fmt: skip
def test_the_same_edit_in_another_sentence(
    source: str, target: str, sentence: str, expected: str | None
) -> None:
    assert substituted(sentence, changes(source, target)) == expected


@pytest.mark.parametrize(
    ("source", "target", "words", "phrases"),
    [
        ("a photo of a red cat", "a photo of a dog", ("red cat", "dog"), ("a red cat", "a dog")),
        ("a cat on a mat", "a dog on a mat", ("cat", "dog"), ("a cat", "a dog")),
        ("a man", "a man with glasses", ("", "with glasses"), ("a man", "a man with glasses")),
        ("a red ball", "a sepia photo of a red ball", ("", "sepia photo of a"),
         ("a red ball", "a sepia photo of a red ball")),
        ("a cat, asleep", "a dog, asleep", ("cat", "dog"), ("a cat", "a dog")),
        ("a cat", "a cat", ("a cat", "a cat"), ("a cat", "a cat")),
    ],
)  # fmt: skip
def test_the_concept_is_what_differs(
    source: str, target: str, words: tuple[str, str], phrases: tuple[str, str]
) -> None:
    found = concepts(source, target)
    assert tuple(c.words for c in found) == words
    assert tuple(c.phrase for c in found) == phrases


def test_words_are_joined_as_they_were() -> None:
    text = "a cat, 3.5 years old; asleep!"
    assert split(text)[:4] == ["a", "cat", ",", "3.5"]
    assert join(split(text)) == text


def test_captions_of_the_shapes_world_are_edited_correctly() -> None:
    """From prompts in any wording to the captioner's, for every type of edit."""
    placed = wrong = total = 0
    for edit_type in range(10):
        for number in range(30):
            edit = edit_of("validation", edit_type, number)
            steps = changes(edit.source_prompt, edit.target_prompt)
            edited = substituted(caption(edit.source), steps)
            total += 1
            if edited is not None:
                placed += 1
                wrong += not _says(edited, edit.target.described())
    assert wrong <= 0.01 * total
    assert placed >= 0.8 * total


def _says(sentence: str, description: object) -> bool:
    try:
        return parse(sentence) == description
    except CaptionError:
        return False


def test_photo_templates_are_filled_with_both_phrases() -> None:
    pairs = photo_sentences("a red cat on a mat", "a dog on a mat", count=1000)
    assert len(set(pairs)) == len(PHOTO)
    assert all(old.replace("a red cat", "a dog") == new for old, new in pairs)


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("edit_type", range(10))
def test_shapes_sentences_differ_in_what_the_prompts_differ(
    edit_type: int, elsewhere: bool
) -> None:
    edit = edit_of("validation", edit_type, 1)
    pairs = shapes_sentences(edit.source_prompt, edit.target_prompt, 12, elsewhere=elsewhere)
    assert pairs == shapes_sentences(
        edit.source_prompt, edit.target_prompt, 12, elsewhere=elsewhere
    )
    assert len(set(pairs)) > 3
    wanted = _difference(edit.source_prompt, edit.target_prompt)
    for old, new in pairs:
        assert _difference(old, new) == wanted
        if not elsewhere:
            assert (parse(old), parse(new)) == (edit.source.described(), edit.target.described())


def _difference(source: str, target: str) -> object:
    """{attribute: (before, after)} of what differs; of a thing that comes or goes, the thing."""
    (old, *before), (new, *after) = parse(source), parse(target)
    pairs = list(zip(("background", "style"), before, after, strict=True))
    if len(old) != len(new):
        return sorted(set(old) ^ set(new)), [p for p in pairs if p[1] != p[2]]
    for i, things in enumerate(zip(old, new, strict=True)):
        names = [f"{name} of {i}" for name in THING_ATTRIBUTES]
        pairs += zip(names, *things, strict=True)
    return [pair for pair in pairs if pair[1] != pair[2]]


@pytest.mark.parametrize("edit_type", range(10))
def test_sentences_in_place_keep_every_word_at_its_place(edit_type: int) -> None:
    for number in range(3):
        edit = edit_of("validation", edit_type, number)
        prompts = edit.source_prompt, edit.target_prompt
        pairs = in_place(*prompts, 32)
        assert pairs[0] == prompts
        assert len(set(pairs)) == len(pairs) >= 4
        assert pairs == in_place(*prompts, 32)
        assert pairs[:3] == in_place(*prompts, 3)
        for pair in pairs:
            assert [len(s.split()) for s in pair] == [len(p.split()) for p in prompts]
            assert _difference(*pair) == _difference(*prompts)


def test_sentences_in_place_exchange_one_word_that_both_prompts_share() -> None:
    pairs = in_place("a big red circle at the beach", "a big blue circle at the beach", 32)
    assert ("a small red circle at the beach", "a small blue circle at the beach") in pairs
    assert ("a big red heart at the beach", "a big blue heart at the beach") in pairs
    assert ("a big red circle in a meadow", "a big blue circle in a meadow") in pairs
    said = {sentence for pair in pairs for sentence in pair}
    assert not any("gray" in sentence for sentence in said)  # of another length
    assert all("red" in before and "blue" in after for before, after in pairs)  # the edit stays


def test_sentences_in_place_are_of_scenes_that_can_be() -> None:
    tilted = in_place(
        "a big tilted red cross in a meadow", "a big tilted red heart in a meadow", 32
    )
    assert len(tilted) > 5
    hollow = in_place("a big hollow red cross in a meadow", "a big red cross in a meadow", 32)
    assert ("a big hollow red circle in a meadow", "a big red circle in a meadow") in hollow
    turned = in_place(
        "a big tilted red cross in a meadow", "a big tilted blue cross in a meadow", 32
    )
    assert not any("circle" in sentence for pair in turned for sentence in pair)


def test_sentences_in_place_take_prompts_outside_the_grammar() -> None:
    assert in_place("my old dog", "my old cat", 8) == [("my old dog", "my old cat")]
    assert ("a blue dog", "a blue cat") in in_place("a red dog", "a red cat", 8)
