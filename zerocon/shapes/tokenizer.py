"""Tokenizers for the grammar's words, in the classes of the published models."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

from zerocon.shapes.captions import vocabulary

START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT = 77


def byte_alphabet() -> list[str]:
    """The 256 printable characters that stand for bytes in byte-level BPE."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(spare)) for b in range(256)]


def clip_vocabulary() -> tuple[dict[str, int], list[str]]:
    """(token → id, merges). Each word of the grammar is one token; others are spelled in bytes.

    The end token has the highest id: `CLIPTextModel` pools there when `eos_token_id` is 2.
    """
    letters = byte_alphabet()
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    merges: dict[tuple[str, str], int] = {}
    for word in vocabulary():
        parts = _split([*word[:-1], word[-1] + "</w>"], merges)
        # New merges have lower rank than earlier ones, so they can't change how earlier words
        # are merged.
        while len(parts) > 1:
            merges[parts[0], parts[1]] = len(merges)
            parts[:2] = [parts[0] + parts[1]]
            tokens.append(parts[0])
    ids = {token: i for i, token in enumerate(dict.fromkeys([*tokens, START, END]))}
    return ids, [f"{first} {second}" for first, second in merges]


def _split(parts: list[str], merges: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding: merge the pair of the lowest rank until none is left."""
    while ranked := [(merges[p], i) for i, p in enumerate(pairwise(parts)) if p in merges]:
        i = min(ranked)[1]
        parts = [*parts[:i], parts[i] + parts[i + 1], *parts[i + 2 :]]
    return parts


def write_clip_tokenizer(folder: Path, longest: int = CONTEXT) -> CLIPTokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    ids, merges = clip_vocabulary()
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = CLIPTokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=longest,
    )
    tokenizer.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)
