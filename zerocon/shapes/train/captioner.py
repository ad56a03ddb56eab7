"""The captioner: BLIP, trained to caption scenes in the grammar's first phrasing."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    BlipTextConfig,
    BlipVisionConfig,
)

from zerocon.shapes.captions import caption, vocabulary
from zerocon.shapes.packaged import plain_float32
from zerocon.shapes.train.data import SIDE, SceneData
from zerocon.shapes.train.loop import Budget, Log, Recipe, train

RECIPE = Recipe("captioner", steps=2500, batch=64, lr=2e-3, seed=14, ema=0.995, muon=True)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNKNOWN, START, END = 0, 1, 2, 3
CONTEXT = 64
WIDTH = 128


def wordpieces() -> list[str]:
    """The grammar's words, and letters to spell all others."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + [str(d) for d in range(10)]
    pieces = [*SPECIAL, *vocabulary(), *letters, *("##" + c for c in letters), ".", ",", "'", "-"]
    return list(dict.fromkeys(pieces))


def write_processor(folder: Path) -> BlipProcessor:
    """Save a processor to `folder` and load it from there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(wordpieces()) + "\n")
    pieces = {piece: i for i, piece in enumerate(wordpieces())}
    tokenizer = BertTokenizer(vocab=pieces, do_lower_case=True, model_max_length=CONTEXT)
    pictures = BlipImageProcessor(
        size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    BlipProcessor(pictures, tokenizer).save_pretrained(folder)
    return BlipProcessor.from_pretrained(folder)


def build() -> BlipForConditionalGeneration:
    vision = BlipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=8,
        initializer_range=0.02,
    )
    # BLIP's decoder starts with `bos_token_id` and ends with `sep_token_id`. Use BERT's two, as
    # the tokenizer does.
    text = BlipTextConfig(
        vocab_size=len(wordpieces()),
        hidden_size=WIDTH,
        encoder_hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        bos_token_id=START,
        eos_token_id=END,
        sep_token_id=END,
        pad_token_id=PAD,
    )
    config = BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    return BlipForConditionalGeneration(config)


def token_ids(sentences: list[str]) -> Tensor:
    """Padded [CLS] … [SEP] ids; equal to the tokenizer's for the grammar, but faster."""
    ids = {piece: i for i, piece in enumerate(wordpieces())}
    rows = [[START, *(ids[word] for word in s.split()), END] for s in sentences]
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


def train_captioner(
    data: SceneData, folder: Path, budget: Budget, recipe: Recipe = RECIPE
) -> BlipForConditionalGeneration:
    torch.manual_seed(recipe.seed)
    model = build()

    def loss_of(_step: int, generator: torch.Generator) -> tuple[Tensor, Log]:
        rows = torch.randint(len(data), (recipe.batch,), generator=generator)
        tokens = token_ids([caption(data.scenes[i]) for i in rows.tolist()])
        labels = tokens.masked_fill(tokens == PAD, -100)
        output = model(pixel_values=data.images(rows), input_ids=tokens, labels=labels)
        right = (output.logits[:, :-1].argmax(-1) == labels[:, 1:]) | (labels[:, 1:] == -100)
        return output.loss.float(), {"exact": right.all(1).float().mean().item()}

    trained, _ = train(model, loss_of, recipe, folder, budget)
    assert isinstance(trained, BlipForConditionalGeneration)
    return trained


def export(model: BlipForConditionalGeneration, folder: Path) -> None:
    model.half().save_pretrained(folder)
    plain_float32(folder / "config.json")
    write_processor(folder)
