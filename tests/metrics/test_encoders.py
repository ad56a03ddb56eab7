from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from metric_pictures import batch, left_half, noise
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from zerocon.core.checks import ConfigError
from zerocon.metrics.clip import ClipScore
from zerocon.metrics.encoders import last_layer, load_clip, load_vit, vit_from_dino
from zerocon.metrics.similarity import ClipChange, DinoSimilarity
from zerocon.metrics.structure import StructureDistance


@pytest.fixture(scope="module")
def original() -> VisionTransformer:
    """DINO's architecture, whose names timm shares; small, with weights that matter."""
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=128, depth=2, num_heads=2, num_classes=0
    )
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return model.eval()


@torch.no_grad()
def test_a_dino_checkpoint_computes_what_its_own_model_does(original: VisionTransformer) -> None:
    vit = vit_from_dino(original.state_dict(), "checkpoint")
    pixels = 3 * noise(2, side=32) - 1
    found: list[Tensor] = []
    qkv = original.blocks[-1].attn.qkv
    handle = qkv.register_forward_hook(lambda _m, _i, output: found.append(output))
    tokens = original.forward_features(pixels)
    handle.remove()
    seen = last_layer(vit, pixels)
    torch.testing.assert_close(seen.keys, found[0].chunk(3, dim=2)[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen.token, tokens[:, 0], rtol=1e-5, atol=1e-5)


def test_a_checkpoint_file_is_known_by_its_content(
    original: VisionTransformer, tmp_path: Path
) -> None:
    torch.save(original.state_dict(), tmp_path / "dino.pth")
    save_file(original.state_dict(), tmp_path / "dino.safetensors")
    first, second = (load_vit(str(tmp_path / f"dino.{kind}")) for kind in ("pth", "safetensors"))
    assert first.fingerprint != second.fingerprint
    torch.testing.assert_close(first(noise(1)).keys, second(noise(1)).keys)
    assert load_vit(str(tmp_path / "dino.pth")) is first


@pytest.mark.parametrize("state", [{}, {"backbone.pos_embed": torch.zeros(1, 5, 64)}])
def test_another_checkpoint_is_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(ConfigError, match="not a DINO ViT's backbone"):
        vit_from_dino(state, "file.pth")


def test_an_incomplete_checkpoint_is_refused(original: VisionTransformer) -> None:
    state = original.state_dict()
    del state["blocks.1.mlp.fc2.bias"]
    with pytest.raises(ConfigError, match=r"1 tensor is missing: blocks\.1\.mlp\.fc2\.bias"):
        vit_from_dino(state, "file.pth")


def test_missing_weights_have_a_message() -> None:
    with pytest.raises(ConfigError, match="there is nothing"):
        load_vit("nowhere/dino.pth")
    with pytest.raises(ConfigError, match="the CLIP no/such is not in the hub's cache"):
        load_clip("no/such", "0" * 40)


class Counting:
    """A CLIP whose space is RGB, which counts what it is asked."""

    fingerprint = "counting"

    def __init__(self) -> None:
        self.pictures, self.passes, self.sentences = 0, 0, 0

    def images(self, pictures: Tensor) -> Tensor:
        self.pictures += len(pictures)
        self.passes += 1
        return pictures.mean((2, 3))

    def texts(self, sentences: Sequence[str]) -> Tensor:
        self.sentences += len(sentences)
        return torch.eye(3)[[len(sentence) % 3 for sentence in sentences]]

    def too_long(self, sentence: str) -> bool:
        return False


def test_metrics_that_share_an_encoder_run_it_once() -> None:
    encoder = Counting()
    pictures = batch(noise(2), noise(2, seed=1), left_half())
    for metric in (
        ClipScore(encoder=encoder, columns=("clip_whole", "clip_edited", "clip_source")),
        ClipChange(encoder=encoder),
    ):
        metric(pictures)
    assert encoder.pictures == 2 * 3  # source, edited, region
    assert encoder.passes == 1
    assert encoder.sentences == 2 * 2  # source, target


def test_the_next_batch_is_encoded_again() -> None:
    metric = ClipChange(encoder=Counting(), columns=("clip_image",))
    first, second = (metric(batch(noise(1), noise(1, seed=s)))["clip_image"] for s in (1, 2))
    assert first.item() != second.item()


def test_judges_given_as_modules_have_a_fingerprint_of_their_weights(
    original: VisionTransformer,
) -> None:
    vit = vit_from_dino(original.state_dict(), "checkpoint")
    before = StructureDistance(vit=vit)
    assert before.columns[0].judge == before.fingerprint == DinoSimilarity(vit=vit).fingerprint
    assert len(before.fingerprint) == 16
    with torch.no_grad():
        next(vit.parameters()).add_(1)
    assert StructureDistance(vit=vit).fingerprint != before.fingerprint


@pytest.mark.parametrize("spoilt", [2 * noise(1), noise(1) - 0.5])
def test_encoders_assert_the_range_of_their_pictures(tiny_clip: str, spoilt: Tensor) -> None:
    for encoder in (load_clip().images, load_clip(tiny_clip).images, load_vit()):
        with pytest.raises(ValueError, match=r"must be in 0\.\.1"):
            encoder(spoilt)
