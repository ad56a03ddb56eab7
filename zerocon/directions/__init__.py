"""Directions: how the target condition is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zerocon.core.registry import offer

if TYPE_CHECKING:
    from zerocon.directions.caption import Caption
    from zerocon.directions.file import File
    from zerocon.directions.prompt_pair import PromptPair
    from zerocon.directions.sentences import Sentences
    from zerocon.directions.word_swap import WordSwap

__all__ = ["Caption", "File", "PromptPair", "Sentences", "WordSwap"]

__getattr__ = offer(
    __name__,
    direction={
        "Caption": "caption",
        "File": "file",
        "PromptPair": "prompt_pair",
        "Sentences": "sentences",
        "WordSwap": "word_swap",
    },
)
