"""The automatic direction: from what a captioner says of the picture (pix2pix-zeroCon, 1-2)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

# The annotation of an inherited setting is looked up in this module, too.
from pathlib import Path  # noqa: F401  # pyright: ignore[reportUnusedImport]
from typing import Literal

import torch

from zerocon.core.cases import Case, World
from zerocon.core.checks import one_of
from zerocon.directions.base import Said
from zerocon.directions.captioner import Captioner, load_captioner
from zerocon.directions.concepts import changes, substituted
from zerocon.directions.sentences import BankName, Sentences, check_model
from zerocon.ledger.cache import Entry, kept

KIND = "captions_v1"


@dataclass(frozen=True)
class Caption(Sentences):
    """Source sentences from the picture's caption, target sentences from the same caption with
    the edited concept exchanged; which concept, the two prompts' difference tells. With no
    source prompt the caption takes its place, and the target prompt is the target sentence.

    `source`: what c is the embedding of, for the whole run: the `caption`, or the `given` source
    prompt where there is one. When the caption doesn't mention what is edited, the target prompt
    is the target sentence. `between`: what the sentences are made of, the `captions` before and
    after the exchange or, where both are given, the two `prompts`. `captioner`: a BLIP model's
    folder or hub id; null: the shapes world's own.
    """

    bank: BankName = "prompts"
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

    def said(self, cases: Sequence[Case]) -> list[Said]:
        captions = self.captions(cases)
        return [self._said(case, text) for case, text in zip(cases, captions, strict=True)]

    def source_prompts(self, cases: Sequence[Case]) -> list[str]:
        """What each case's source prompt is, for inversion and sampler too."""
        captions = self.captions(cases)
        return [self._base(case, text) for case, text in zip(cases, captions, strict=True)]

    def captions(self, cases: Sequence[Case]) -> list[str]:
        """What the captioner says of each picture, alone; kept for the next time."""
        model = self._captioner()
        return [_captioned(model, case) for case in cases]

    @property
    def worlds(self) -> dict[str, World]:
        own: dict[str, World] = {"captioner": "shapes"} if self.captioner is None else {}
        return super().worlds | own

    @property
    def fingerprint(self) -> str:
        return "+".join(
            part for part in (self._captioner().fingerprint, super().fingerprint) if part
        )

    def _said(self, case: Case, caption: str) -> Said:
        return Said(self._base(case, caption), *self.sentences(*self._pair(case, caption)))

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


def _captioned(model: Captioner, case: Case) -> str:
    levels = (case.image * 255).round().to(torch.uint8).cpu().contiguous()
    picture = hashlib.sha256(levels.numpy().tobytes()).hexdigest()
    decided = [model.fingerprint, list(levels.shape), picture]
    # Alone, so that a picture's caption can't depend on its batch-mates.
    found = kept(KIND, decided, lambda: Entry(said={"captions": model(case.image[None])}))
    return found.said["captions"][0]
