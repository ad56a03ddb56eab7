"""T5 in half precision and in 8 bit, and text encoders that are off the device between prompts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.tiny_transformers import (
    t5_encoder,
    t5_tokenizer,
    tiny_flux,
    tiny_flux_parts,
    tiny_sd3,
    tiny_sd3_parts,
)
from zerocon.backbones.flux import Flux
from zerocon.backbones.sd3 import SD3
from zerocon.backbones.text_encoders import CPU, Int8Linear, TextEncoders, frozen_t5, in_8bit
from zerocon.core.checks import ConfigError

PROMPTS = ["a big red circle on a gray background", "a small blue house at the beach"]


def t5() -> Any:
    torch.manual_seed(0)
    return t5_encoder(t5_tokenizer()).eval()


def test_in_float16_t5s_last_layers_stay_single() -> None:
    ready = frozen_t5(t5(), CPU, torch.float16)
    kept = {n for n, w in ready.named_parameters() if w.dtype == torch.float32}
    assert kept == {f"encoder.block.{i}.layer.1.DenseReluDense.wo.weight" for i in range(2)}
    assert all(w.dtype == torch.bfloat16 for w in frozen_t5(t5(), CPU, torch.bfloat16).parameters())


@pytest.mark.parametrize("in_8", [False, True])
def test_what_would_overflow_float16_does_not(in_8: bool) -> None:
    """As T5-XXL's feed-forward blocks do, where weights are large."""
    model = t5()
    for name, weight in model.named_parameters():
        if name.endswith("wo.weight"):
            weight.data.mul_(3e5)
    numbers = torch.tensor([[5, 6, 7, 1]])
    with torch.no_grad():
        exact = model(numbers)[0]
        assert not copy.deepcopy(model).half()(numbers)[0].isfinite().all()
        found = frozen_t5(model, CPU, torch.float16, in_8=in_8)(numbers)[0]
    error = (found.float() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert error < (0.03 if in_8 else 0.002)


def test_a_layer_in_8_bit_is_as_near_as_8_bit_can_be() -> None:
    linear = nn.Linear(64, 48)
    linear.weight.data[3] *= 100  # each row has its own scale
    ours = Int8Linear(linear)
    assert ours.weight.dtype == torch.int8
    restored = ours.weight.float() * ours.scale
    assert ((restored - linear.weight).abs() <= ours.scale / 2 + 1e-9).all()
    x = torch.randn(5, 64)
    torch.testing.assert_close(ours(x), nn.functional.linear(x, restored, linear.bias))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_t5_in_8_bit_reads_nearly_the_same(dtype: torch.dtype) -> None:
    numbers = torch.tensor([[5, 6, 7, 8, 1]])
    exact = t5()(numbers)[0]
    found = frozen_t5(t5(), CPU, dtype, in_8=True)(numbers)[0]
    assert found.dtype == dtype
    assert 0 < (found.float() - exact).square().mean().sqrt() / exact.square().mean().sqrt() < 0.03


def test_8_bit_takes_a_quarter_of_single_precisions_memory() -> None:
    def size(model: nn.Module) -> int:
        tensors = [t for m in linears(model) for t in (*m.parameters(), *m.buffers())]
        return sum(t.numel() * t.element_size() for t in tensors)

    def linears(model: nn.Module) -> list[nn.Module]:
        return [m for m in model.modules() if isinstance(m, nn.Linear | Int8Linear)]

    whole, quarter = t5(), in_8bit(t5())
    assert len(linears(whole)) == len(linears(quarter)) == 14
    assert size(quarter) < 0.45 * size(whole)  # the rows here have 16 and 32 numbers, each a scale


class Travels(nn.Module):
    """Where it has been sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def to(self, *args: Any, **_: Any) -> Any:
        self.sent.append(str(args[0]))
        return self


def test_offloaded_encoders_are_on_the_device_while_they_read() -> None:
    model = Travels()
    encoders = TextEncoders([model], torch.device("meta"), offload=True)
    with encoders.reading():
        assert model.sent == ["meta"]
    assert model.sent == ["meta", "cpu"]
    with pytest.raises(ZeroDivisionError), encoders.reading():
        _ = 1 / 0
    assert model.sent[-1] == "cpu"
    resident = TextEncoders([model], torch.device("meta"), offload=False)
    with resident.reading():
        pass
    assert len(model.sent) == 4
    with pytest.raises(ConfigError, match="no effect on the CPU"):
        TextEncoders([model], CPU, offload=True)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_a_backbone_with_t5_in_8_bit(kind: str, tmp_path: Path) -> None:
    make, parts_of = (tiny_sd3, tiny_sd3_parts) if kind == "sd3" else (tiny_flux, tiny_flux_parts)
    parts: Any = parts_of(tmp_path)
    exact, ours = make(copy.deepcopy(parts)), make(parts, t5_8bit=True)
    a, b = (backbone.embed(PROMPTS) for backbone in (exact, ours))
    assert not torch.equal(a.tokens, b.tokens)
    torch.testing.assert_close(a.tokens, b.tokens, rtol=0.1, atol=0.1)
    assert a.pooled is not None
    torch.testing.assert_close(a.pooled, b.pooled)


def test_the_fingerprint_says_8_bit(tmp_path: Path) -> None:
    from tests.backbones.test_flux import pipeline_of

    pipeline_of(tiny_flux_parts(tmp_path / "parts")).save_pretrained(tmp_path / "model")
    settings: dict[str, Any] = {"device": "cpu", "side": 32}
    plain = Flux(str(tmp_path / "model"), **settings).load()
    in_8 = Flux(str(tmp_path / "model"), t5_8bit=True, **settings).load()
    assert in_8.fingerprint == f"{plain.fingerprint}-t5-8bit"
    with pytest.raises(ConfigError, match="no effect on the CPU"):
        Flux(str(tmp_path / "model"), offload_text=True, **settings).load()
    with pytest.raises(ConfigError, match=r"t5=false leaves T5 out"):
        SD3("x", t5=False, t5_8bit=True)
