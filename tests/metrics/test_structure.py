from __future__ import annotations

from pathlib import Path

import pytest
import torch
from metric_pictures import batch, noise
from transformers import ViTConfig, ViTModel

from zerocon.metrics.base import ProtocolName
from zerocon.metrics.encoders import last_layer
from zerocon.metrics.structure import StructureDistance, self_similarity, structure_distance


@pytest.fixture(scope="module")
def vit() -> ViTModel:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    return ViTModel(config, add_pooling_layer=False).eval()


def test_self_similarity_by_hand() -> None:
    keys = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [0.0, 0.0]]])
    half = 0.5**0.5
    wanted = [[1, 0, half, 0], [0, 1, half, 0], [half, half, 1, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(self_similarity(keys)[0], torch.tensor(wanted))


def test_distance_by_hand() -> None:
    a = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    b = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    assert structure_distance(a, b).item() == pytest.approx(0.5)
    assert structure_distance(a, 7 * a).item() == pytest.approx(0)


def test_keys_are_those_that_the_last_layer_computes(vit: ViTModel) -> None:
    pixels = noise(1, side=32)
    layers = vit.layers if hasattr(vit, "layers") else vit.encoder.layer
    before = vit(pixel_values=pixels, output_hidden_states=True).hidden_states[1]
    last = layers[-1]
    key = next(m for n, m in last.named_modules() if n.endswith(("k_proj", "key")))
    torch.testing.assert_close(last_layer(vit, pixels).keys, key(last.layernorm_before(before)))


def test_keys_leave_no_hook_behind(vit: ViTModel) -> None:
    def hooks() -> list[object]:
        return [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in vit.modules()]

    before = hooks()
    last_layer(vit, noise(1, side=32))
    assert hooks() == before


def test_the_last_layer_runs_to_its_end_for_the_class_token_only(vit: ViTModel) -> None:
    ran: list[str] = []
    for name, module in vit.named_modules():
        if name.endswith((".fc1", ".intermediate.dense")):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    pixels = noise(2, side=32)
    wanted = vit(pixel_values=pixels).last_hidden_state[:, 0]
    every = list(ran)
    ran.clear()
    seen = last_layer(vit, pixels)
    assert ran == every[:-1]
    torch.testing.assert_close(seen.token, wanted)
    assert seen.token is seen.token
    assert ran == every


def test_identical_pictures_have_distance_zero(vit: ViTModel) -> None:
    a = noise(2)
    assert StructureDistance(vit=vit)(batch(a, a))["structure"].tolist() == [0, 0]


def test_the_published_protocol_feeds_levels_up_to_255(vit: ViTModel) -> None:
    masked = StructureDistance(vit=vit, mean=(0.5,) * 3, std=(0.5,) * 3)
    published = StructureDistance(
        vit=vit, protocol="published", antialias=True, mean=(127.5,) * 3, std=(127.5,) * 3
    )
    a = noise(1)
    torch.testing.assert_close(masked.keys(a), published.keys(a))
    quirk = StructureDistance(vit=vit, protocol="published")
    assert (masked.keys(a) - quirk.keys(a)).abs().max() > 0.01


def test_antialiasing_follows_the_protocol_unless_it_is_set(vit: ViTModel) -> None:
    a, b = noise(1), noise(1, seed=1)

    def distance(protocol: ProtocolName, antialias: bool | None) -> float:
        metric = StructureDistance(vit=vit, protocol=protocol, antialias=antialias)
        return metric(batch(a, b))["structure"].item()

    assert distance("masked", None) == distance("masked", True) != distance("masked", False)
    assert distance("published", None) == distance("published", False)
    assert distance("published", None) != distance("published", True)


def test_how_pictures_are_resized_is_part_of_the_column(vit: ViTModel) -> None:
    (masked,) = StructureDistance(vit=vit).columns
    assert masked.takes == "0..1, normalised"
    (published,) = StructureDistance(vit=vit, protocol="published").columns
    assert published.takes.endswith("; resized without antialiasing")


def test_a_case_scores_the_same_alone_and_in_a_batch(vit: ViTModel) -> None:
    a, b = noise(3), noise(3, seed=1)
    metric = StructureDistance(vit=vit)
    together = metric(batch(a, b))["structure"]
    alone = metric(batch(a[1:2], b[1:2]))["structure"]
    assert alone.item() == pytest.approx(together[1].item(), rel=1e-4)


def test_a_local_folder_is_loaded(vit: ViTModel, tmp_path: Path) -> None:
    vit.save_pretrained(tmp_path)
    metric = StructureDistance(path=str(tmp_path))
    assert metric.encoder.mean == pytest.approx([0.485, 0.456, 0.406])
    assert len(metric.fingerprint) == 16
    torch.testing.assert_close(
        last_layer(metric.encoder.vit, noise(1, side=32)).keys,
        last_layer(vit, noise(1, side=32)).keys,
    )


def test_a_hub_model_needs_a_revision() -> None:
    with pytest.raises(ValueError, match="needs a `revision`"):
        StructureDistance(path="facebook/dino-vitb8")
