"""Built-in sentences about the edited concept, for photographs.

The same templates are filled with the concept before and after, so that the mean difference
reflects mainly the edit.
"""

from __future__ import annotations

from zerocon.directions.concepts import concepts

PHOTO = (
    "{}",
    "a photo of {}",
    "a picture of {}",
    "a close-up photo of {}",
    "a black and white photo of {}",
    "a bright photo of {}",
    "a dark photo of {}",
    "a cropped photo of {}",
    "a good photo of {}",
    "a blurry photo of {}",
    "a drawing of {}",
    "a painting of {}",
    "an image of {}",
    "a snapshot of {} taken outdoors",
    "a photo of {} taken indoors",
    "{} in front of a plain wall",
    "{} on a sunny day",
    "{} in the evening light",
    "{} in the city",
    "{} in the countryside",
    "{} by the sea",
    "{} seen from the side",
    "{} seen from far away",
    "there is {} in the picture",
    "this is {}",
    "you can see {} here",
    "somebody is looking at {}",
    "the photographer took a picture of {}",
    "a magazine cover that shows {}",
    "a high quality photograph of {}",
    "a postcard with {} on it",
    "a wide shot of {}",
)

Pair = tuple[str, str]


def photo_sentences(source: str, target: str, count: int) -> list[Pair]:
    """Templates of photo captions, filled with the phrase that changes."""
    before, after = concepts(source, target)
    return [(t.format(before.phrase), t.format(after.phrase)) for t in PHOTO[:count]]
