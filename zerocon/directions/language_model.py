"""Sentences about a concept, written by a causal language model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from zerocon.core.memory import Entry, Memory
from zerocon.core.weights import folder_fingerprint, load_beside, load_pretrained

# The model continues the last line, so each sentence begins with the concept. It need not be
# instruction-tuned.
KIND = "sentences_v1"
PROMPT = """Captions of photographs, one a line:
a brown horse standing in a field under a blue sky
two children playing football in the street
a cup of coffee on a wooden table next to a book
{concept}"""
LONGEST = 20  # tokens after the concept
ADVICE = (
    "direction.model is a folder in transformers' layout or a hub id (then direction.revision pins "
    "its commit)"
)


@dataclass(frozen=True, eq=False)
class Writer:
    """A language model with its tokenizer and a digest of its weights."""

    model: Any  # transformers' Auto classes determine the type at run time
    tokenizer: Any
    fingerprint: str

    def continuations(self, concept: str, count: int, seed: int, memory: Memory) -> list[str]:
        """Continue `count` sentences that begin with the concept."""
        content = [self.fingerprint, PROMPT, LONGEST, concept, count, seed]
        found = memory.kept(
            KIND, content, lambda: Entry(values={"lines": self._write(concept, count, seed)})
        )
        return list(found.values["lines"])

    @torch.no_grad()
    def _write(self, concept: str, count: int, seed: int) -> list[str]:
        tokens = self.tokenizer(PROMPT.format(concept=concept), return_tensors="pt")
        tokens = tokens.to(self.model.device)
        digest = hashlib.sha256(f"{seed}/{concept}".encode()).digest()
        with torch.random.fork_rng():
            torch.manual_seed(int.from_bytes(digest[:7], "big"))
            written = self.model.generate(
                input_ids=tokens.input_ids,
                attention_mask=tokens.attention_mask,
                do_sample=True,
                top_p=0.95,
                top_k=0,
                temperature=0.9,
                max_new_tokens=LONGEST,
                num_return_sequences=count,
                pad_token_id=self._padding(),
            )
        added = written[:, tokens.input_ids.shape[1] :]
        texts = self.tokenizer.batch_decode(added, skip_special_tokens=True)
        return [first_sentence(text) for text in texts]

    def _padding(self) -> int:
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(number for number in known if number is not None)


def first_sentence(text: str) -> str:
    """The text up to the end of its first line or sentence, with single spaces."""
    line = text.split("\n", 1)[0]
    return " ".join(line.split(". ", 1)[0].rstrip(" .").split())


@cache
def load_writer(path: str, revision: str | None) -> Writer:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options: dict[str, Any] = {"revision": revision} if revision else {}
    model = load_pretrained(
        AutoModelForCausalLM.from_pretrained,
        path,
        "the language model",
        advice=ADVICE,
        dtype=torch.float32,
        **options,
    )
    tokenizer = load_beside(
        AutoTokenizer.from_pretrained,
        path,
        "the language model's tokenizer",
        advice=ADVICE,
        **options,
    )
    local = Path(path).is_dir()
    digest = folder_fingerprint(Path(path)) if local else f"{path}@{revision}"
    return Writer(model.eval().requires_grad_(False).to(device), tokenizer, digest)
