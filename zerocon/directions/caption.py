"""The automatic direction, from a caption of the picture (pix2pix-zeroCon, steps 1 and 2)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

# Annotations of inherited settings are resolved in this module, too.
from pathlib import Path  # noqa: F401  # pyright: ignore[reportUnusedImport]
from typing import Literal

import torch

from zerocon.core.cases import Case, World
from zerocon.core.checks import one_of
from zerocon.core.memory import NO_MEMORY, Entry, Memory
from zerocon.directions.base import SentenceSets
from zerocon.directions.captioner import Captioner, load_captioner
from zerocon.directions.concepts import changes, substituted
from zerocon.directions.sentences import Sentences, check_model

KIND = "captions_v1"


@dataclass(frozen=True)
class Caption(Sentences):
    """Source sentences from the picture's caption, target sentences from the caption with the
    edited concept exchanged, which is the difference of the two prompts. Without a source prompt,
    the caption is the source prompt and the target prompt is the target sentence.

    `source`: the text whose embedding is c, for the whole run: the `caption`, or the `given`
    source prompt if there is one. If the caption does not mention the edited concept, the target
    prompt is the target sentence. `between`: what the sentences are made from, the `captions`
    before and after the exchange or, if both are given, the two `prompts`. `captioner`: a BLIP
    model's folder or hub id; null: the shapes world's.
    """

    bank: str = "prompts"
    source: Literal["caption", "given"] = "caption"
    between: Literal["captions", "prompts"] = "captions"
    captioner: str | None = None
    captioner_revision: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("direction.source", self.source, ("caption", "given"))
        one_of("direction.between", self.between, ("captions", "prompts"))
        if self.captioner is not None:
            pin = "direction.captioner_revision"
            check_model("direction.captioner", self.captioner, pin, self.captioner_revision)

    def sentence_sets(self, cases: Sequence[Case], memory: Memory) -> list[SentenceSets]:
        captions = self.captions(cases, memory)
        return [
            SentenceSets(self._base(case, text), *self.sentences(*self._pair(case, text), memory))
            for case, text in zip(cases, captions, strict=True)
        ]

    def source_prompts(self, cases: Sequence[Case], memory: Memory) -> list[str]:
        """Each case's source prompt, also used by inversion and sampler."""
        captions = self.captions(cases, memory)
        return [self._base(case, text) for case, text in zip(cases, captions, strict=True)]

    def captions(self, cases: Sequence[Case], memory: Memory = NO_MEMORY) -> list[str]:
        """The caption of each picture."""
        model = self._captioner()
        return [_captioned(model, case, memory) for case in cases]

    @property
    def worlds(self) -> dict[str, World]:
        own: dict[str, World] = {"captioner": "shapes"} if self.captioner is None else {}
        return super().worlds | own

    def _base(self, case: Case, caption: str) -> str:
        given = self.source == "given" and case.source_prompt
        return case.source_prompt if given else caption

    def _pair(self, case: Case, caption: str) -> tuple[str, str]:
        """One source and one target sentence."""
        if not case.source_prompt:
            return caption, case.target_prompt
        if self.between == "prompts":
            return case.source_prompt, case.target_prompt
        edited = substituted(caption, changes(case.source_prompt, case.target_prompt))
        return caption, case.target_prompt if edited is None else edited

    def _captioner(self) -> Captioner:
        if self.captioner is None:
            return load_captioner()
        return load_captioner(self.captioner, self.captioner_revision)


def _captioned(model: Captioner, case: Case, memory: Memory) -> str:
    levels = (case.image * 255).round().to(torch.uint8).cpu().contiguous()
    picture = hashlib.sha256(levels.numpy().tobytes()).hexdigest()
    content = [model.fingerprint, list(levels.shape), picture]
    # One picture at a time, so that its caption does not depend on its batch.
    found = memory.kept(KIND, content, lambda: Entry(values={"captions": model(case.image[None])}))
    return found.values["captions"][0]
