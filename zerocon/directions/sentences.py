"""The mean difference between sentences about the target and sentences about the source.

Parmar et al. 2023 (pix2pix-zero); pix2pix-zeroCon, step 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from zerocon.backbones.base import Backbone
from zerocon.core.cases import Case, CaseError, World
from zerocon.core.checks import ConfigError, in_range, one_of
from zerocon.core.conditions import Condition
from zerocon.core.memory import NO_MEMORY, Entry, Memory
from zerocon.core.named import named
from zerocon.core.source_code import code_of
from zerocon.core.weights import is_download
from zerocon.directions.banks import check_place, file_sentences
from zerocon.directions.base import (
    SentenceSets,
    check_strength,
    difference_of,
    mean_embedding,
    steered,
)
from zerocon.directions.concepts import concepts
from zerocon.directions.language_model import Writer, load_writer

KIND = "directions_v3"
# Banks that are functions, (source prompt, target prompt, count) -> pairs of sentences, each by
# its module and name. `add_bank` adds one.
BANKS = {
    "shapes": "zerocon.shapes.sentences:in_other_words",
    "shapes_elsewhere": "zerocon.shapes.sentences:in_other_scenes",
    "shapes_in_place": "zerocon.shapes.sentences:in_place",
    "photo": "zerocon.directions.templates:photo_sentences",
}
OTHERS = ("prompts", "file", "language_model")
# The shapes world's sentences follow its grammar; the templates are captions of photographs.
BANK_WORLDS: Mapping[str, World] = {
    "shapes": "shapes",
    "shapes_elsewhere": "shapes",
    "shapes_in_place": "shapes",
    "photo": "photographs",
}


def add_bank(name: str, place: str) -> None:
    """Make `direction.bank=name` mean the function at `module:name`."""
    if name in OTHERS or BANKS.get(name, place) != place:
        raise ConfigError(f"there is a bank of sentences named {name!r} already")
    BANKS[name] = place


@dataclass(frozen=True)
class Sentences:
    """c_edit = c + α (mean embed(target sentences) - mean embed(source sentences)).

    `bank`, where the sentences are from: `prompts` (the two prompts only), `shapes` (the
    prompts in other words of the shapes world's grammar), `shapes_elsewhere` (in other scenes,
    too), `shapes_in_place` (one word that both prompts share exchanged at a time), `photo`
    (built-in templates filled with what changes), `file`, `language_model`.
    `count`: of each of the two banks, at most. `paired`: the language model's target sentences
    are its source sentences with the concept exchanged; otherwise it writes them anew.
    """

    keeps_target_words: ClassVar[bool] = False

    bank: str = "shapes"
    count: int = 32
    file: Path | None = None
    model: str | None = None
    revision: str | None = None
    paired: bool = True
    seed: int = 0
    strength: float = 1.0
    pooled: bool = False

    def __post_init__(self) -> None:
        one_of("direction.bank", self.bank, ("prompts", *BANKS, "file", "language_model"))
        in_range("direction.count", self.count, 1, 10_000)
        in_range("direction.seed", self.seed, 0)
        check_strength(self.strength)
        self._check_place("file", self.file, "file", "a folder of <concept>.txt, or a JSON file")
        self._check_place("model", self.model, "language_model", "a folder or a hub id")
        if self.file is not None:
            check_place(self.file)
        if self.model is not None:
            check_model("direction.model", self.model, "direction.revision", self.revision)

    def __call__(
        self, backbone: Backbone, cases: Sequence[Case], memory: Memory = NO_MEMORY
    ) -> Condition:
        sets = self.sentence_sets(cases, memory)
        bases = backbone.embed([s.base for s in sets])
        deltas = Condition.stack([difference(backbone, s, memory) for s in sets])
        return steered(bases, deltas, self.strength, pooled=self.pooled)

    def sentence_sets(self, cases: Sequence[Case], memory: Memory) -> list[SentenceSets]:
        return [
            SentenceSets(
                case.source_prompt,
                *self.sentences(case.source_prompt, case.target_prompt, memory),
            )
            for case in cases
        ]

    def sentences(
        self, source: str, target: str, memory: Memory = NO_MEMORY
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The sentences for an edit from one prompt to the other: source set, target set."""
        if not source.strip():
            raise CaseError(
                "the source prompt is empty, so it can't be told what is edited; "
                "direction=caption writes one from the picture"
            )
        before, after = concepts(source, target)
        match self.bank:
            case "prompts":
                return (source,), (target,)
            case "file":
                assert self.file is not None
                sets = [file_sentences(self.file, concept) for concept in (before, after)]
                return tuple(sets[0][: self.count]), tuple(sets[1][: self.count])
            case "language_model":
                pairs = self._written(before.phrase, after.phrase, memory)
            case _:
                pairs = named(BANKS[self.bank])(source, target, self.count)
        return tuple(old for old, _ in pairs), tuple(new for _, new in pairs)

    @property
    def worlds(self) -> dict[str, World]:
        """Of the settings that choose something which knows one kind of pictures only."""
        world = BANK_WORLDS.get(self.bank)
        return {} if world is None else {"bank": world}

    def _written(self, before: str, after: str, memory: Memory) -> list[tuple[str, str]]:
        writer = self._writer()
        old = writer.continuations(before, self.count, self.seed, memory)
        new = old if self.paired else writer.continuations(after, self.count, self.seed, memory)
        return [
            (f"{before} {a}".strip(), f"{after} {b}".strip()) for a, b in zip(old, new, strict=True)
        ]

    def _writer(self) -> Writer:
        assert self.model is not None
        return load_writer(self.model, self.revision)

    def _check_place(self, field: str, value: object, bank: str, wanted: str) -> None:
        if self.bank == bank and value is None:
            raise ConfigError(f"direction.bank={bank} needs direction.{field}: {wanted}")
        if self.bank != bank and value is not None:
            raise ConfigError(
                f"direction.{field}={value} has no effect with direction.bank={self.bank}; "
                f"say direction.bank={bank}, or leave it out"
            )


def check_model(field: str, path: str, revision_field: str, revision: str | None) -> None:
    """ConfigError unless the path is a folder that is there, or a hub id at a fixed revision."""
    if Path(path).expanduser().is_dir():
        return
    if is_download(path):
        raise ConfigError(
            f"{field}={path}: there is no such folder; `zerocon download` fetches what it lists"
        )
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ConfigError(f"{field}={path}: there is no such folder")
    if revision is None:
        raise ConfigError(f"{field}={path} is a hub id; pin its commit with {revision_field}=…")


def difference(backbone: Backbone, sets: SentenceSets, memory: Memory) -> Condition:
    """Δc, tokens [token, width], in single precision."""
    content = [
        backbone.fingerprint,
        code_of(mean_embedding.__module__, type(backbone).__module__),
        [backbone.device.type, str(backbone.dtype)],
        sorted(set(sets.sources)),
        sorted(set(sets.targets)),
    ]

    def compute() -> Entry:
        target, source = (mean_embedding(backbone, bank) for bank in (sets.targets, sets.sources))
        delta = difference_of(target, source)
        return Entry({name: part.cpu() for name, part in delta.parts.items()})

    return Condition(**memory.kept(KIND, content, compute).tensors)
