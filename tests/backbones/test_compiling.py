"""Compiled passes: no graph breaks, the same numbers, few graphs, and a reason where there is none.

The compiler's back end is replaced by one that runs the captured graph as it is, and keeps it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from tests.tiny import tiny_backbone, tiny_parts
from tests.tiny_transformers import tiny_flux, tiny_flux_parts, tiny_sd3, tiny_sd3_parts
from zerocon.backbones.base import is_compiled
from zerocon.backbones.compiling import CACHE, pays
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.backbones.transformer import TransformerBackbone
from zerocon.config.settings import compose_settings
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Condition
from zerocon.core.forward import predict, run_for_taps, told
from zerocon.core.taps import record, replace, shared
from zerocon.losses.gradients import gradients


class Graphs:
    """A back end that keeps what it is given."""

    def __init__(self) -> None:
        self.seen: list[torch.fx.GraphModule] = []

    def __call__(self, graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        self.seen.append(graph)
        return graph.forward


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionBackbone:
    """Two levels, one layer each: quick to trace."""
    parts = tiny_parts(tmp_path_factory.mktemp("small"))
    torch.manual_seed(1)
    parts.unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    return tiny_backbone(parts)


@pytest.fixture
def graphs() -> Graphs:
    return Graphs()


@pytest.fixture
def backbone(plain: StableDiffusionBackbone) -> Iterator[StableDiffusionBackbone]:
    """Uncompiled again after each test."""
    before = plain._compiled
    torch.compiler.reset()
    yield plain
    plain._compiled = before
    torch.compiler.reset()


def inputs(backbone: StableDiffusionBackbone, count: int) -> tuple[Tensor, Condition]:
    z = torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(count))
    return z, backbone.embed([f"a big red circle {i}" for i in range(count)])


def noise(backbone: StableDiffusionBackbone, count: int, share: float) -> Tensor:
    z, text = inputs(backbone, count)
    with torch.no_grad():
        return backbone.predict(z, backbone.level(share), text).noise


@pytest.mark.slow
def test_a_plain_pass_is_one_graph_for_each_number_of_rows_at_any_time(
    backbone: StableDiffusionBackbone, graphs: Graphs
) -> None:
    asked = [(2, 0.5), (2, 0.1), (4, 0.5), (2, 0.3)]
    before = [noise(backbone, *one) for one in asked]
    compiled = backbone.compile(graphs, patience=0)
    after = [noise(backbone, *one) for one in asked]
    assert compiled.why_not is None
    assert len(graphs.seen) == 2
    for ours, theirs in zip(after, before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_last_batch_of_fewer_rows_is_not_compiled(
    backbone: StableDiffusionBackbone, graphs: Graphs
) -> None:
    before = noise(backbone, 3, 0.5)
    compiled = backbone.compile(graphs, patience=0)
    noise(backbone, 4, 0.5)
    assert torch.equal(noise(backbone, 3, 0.5), before)
    assert len(graphs.seen) == 1
    assert "3 rows are fewer than its graph's, 4" in str(compiled.why_not)
    noise(backbone, 3, 0.5)  # more often than 4: the batches are smaller now
    assert len(graphs.seen) == 2


@pytest.mark.slow
def test_passes_are_compiled_once_they_have_come_a_few_times(
    backbone: StableDiffusionBackbone, graphs: Graphs
) -> None:
    backbone.compile(graphs, patience=2)
    for _ in range(2):
        noise(backbone, 2, 0.5)
        noise(backbone, 4, 0.5)
    assert not graphs.seen
    noise(backbone, 2, 0.5)
    assert len(graphs.seen) == 1
    with backbone.uncompiled():
        noise(backbone, 4, 0.5)
    assert len(graphs.seen) == 1


@pytest.mark.slow
def test_passes_that_come_once_a_batch_are_not_compiled(
    backbone: StableDiffusionBackbone, graphs: Graphs
) -> None:
    backbone.compile(graphs, patience=0)
    for _ in range(24):
        noise(backbone, 2, 0.5)
    noise(backbone, 4, 0.5)  # 1 of 25 passes
    assert len(graphs.seen) == 1
    noise(backbone, 4, 0.5)  # 2 of 26
    assert len(graphs.seen) == 2


def captured(backbone: StableDiffusionBackbone, count: int) -> list[Tensor]:
    z, text = inputs(backbone, 2 * count)
    rows = {role: (z[i::2], text[i::2]) for i, role in enumerate(("source", "target"))}
    with (
        torch.no_grad(),
        record(backbone.taps, "cross", "probs", roles=("source",)) as maps,
        record(backbone.taps, "up.*.self", "output") as outputs,
    ):
        found = predict(backbone, backbone.level(0.5), rows)
        return [found["target"].noise, *maps.of("source"), *outputs.of("target")]


@pytest.mark.slow
def test_a_pass_gives_its_recordings_from_one_graph_for_each_number_of_rows(
    backbone: StableDiffusionBackbone, graphs: Graphs
) -> None:
    before = [captured(backbone, count) for count in (1, 2)]
    compiled = backbone.compile(graphs, patience=0)
    after = [captured(backbone, count) for count in (1, 2)]
    assert compiled.why_not is None
    assert len(graphs.seen) == 2
    for ours, theirs in zip(after, before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def slope(backbone: StableDiffusionBackbone, count: int) -> Tensor:
    """Of a loss on what passes the encoder, in a pass that ends there."""
    z, text = inputs(backbone, count)

    def loss_at(latents: dict[str, Tensor]) -> Tensor:
        with record(backbone.taps, "down.*.cross", "probs", stop=True) as maps:
            run_for_taps(backbone, backbone.level(0.5), {"target": (latents["target"], text)})
        return torch.stack([m.square().sum((1, 2, 3)) for m in maps.of("target")]).sum(0)

    return gradients(loss_at, {"target": z}, torch.float32)["target"]


@pytest.mark.slow
def test_a_guided_pass_has_its_gradient_and_leaves_out_what_is_behind_the_last_site(
    backbone: StableDiffusionBackbone, graphs: Graphs
) -> None:
    before = slope(backbone, 2)
    compiled = backbone.compile(graphs, patience=0)
    torch.testing.assert_close(slope(backbone, 2), before, rtol=1e-5, atol=1e-7)
    assert compiled.why_not is None
    noise(backbone, 2, 0.5)
    guided, whole = (convolutions(graph) for graph in graphs.seen)
    assert 0 < guided < whole / 3


def convolutions(graph: torch.fx.GraphModule) -> int:
    """Of what the graph's results need."""
    graph.graph.eliminate_dead_code()
    return sum("conv2d" in str(node.target) for node in graph.graph.nodes)


def test_a_pass_with_replaced_activations_is_not_compiled(
    backbone: StableDiffusionBackbone, graphs: Graphs, caplog: pytest.LogCaptureFixture
) -> None:
    def shared_values() -> Tensor:
        z, text = inputs(backbone, 2)
        rows = {role: (z[i : i + 1], text[i : i + 1]) for i, role in enumerate("ab")}
        with torch.no_grad(), replace(backbone.taps, "self", "values", shared("a", "b")):
            return predict(backbone, backbone.level(0.5), rows)["b"].noise

    before = shared_values()
    compiled = backbone.compile(graphs, patience=0)
    assert torch.equal(shared_values(), before)
    assert not graphs.seen
    assert "replace activations" in str(compiled.why_not)
    shared_values()
    assert len(caplog.records) == 1  # said once


@pytest.mark.slow
def test_what_the_compiler_cannot_do_runs_uncompiled_and_says_why(
    backbone: StableDiffusionBackbone, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        raise RuntimeError("no such instruction")

    before = noise(backbone, 2, 0.5)
    compiled = backbone.compile(broken, patience=0)
    assert torch.equal(noise(backbone, 2, 0.5), before)
    assert "no such instruction" in str(compiled.why_not)
    assert "no such instruction" in caplog.text


@pytest.fixture(params=["sd3", "flux"])
def transformer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TransformerBackbone]:
    torch.compiler.reset()
    if request.param == "sd3":
        yield tiny_sd3(tiny_sd3_parts(tmp_path))
    else:
        yield tiny_flux(tiny_flux_parts(tmp_path))
    torch.compiler.reset()


@pytest.mark.slow
def test_transformers_are_compiled_with_their_taps_and_gradients(
    transformer: TransformerBackbone, graphs: Graphs
) -> None:
    clean = transformer.encode(torch.rand(2, 3, *transformer.size))
    text = told(transformer, transformer.embed(["a red circle", "a blue square"]), 3.5)
    level = transformer.level(0.5)

    def recorded() -> list[Tensor]:
        rows = {role: (clean[i : i + 1], text[i : i + 1]) for i, role in enumerate("ab")}
        with (
            torch.no_grad(),
            record(transformer.taps, "cross", "probs", roles=("a",)) as maps,
            record(transformer.taps, "self", "output") as outputs,
        ):
            found = predict(transformer, level, rows)
        return [found["b"].clean, *maps.of("a"), *outputs.of("b")]

    def loss_at(latents: dict[str, Tensor]) -> Tensor:
        with record(transformer.taps, "cross", "probs", stop=True) as maps:
            run_for_taps(transformer, level, {"a": (latents["a"], text)})
        return torch.stack([m.square().sum((1, 2, 3)) for m in maps.of("a")]).sum(0)

    def all_found() -> list[Tensor]:
        return [*recorded(), gradients(loss_at, {"a": clean}, torch.float32)["a"]]

    before = all_found()
    compiled = transformer.compile(graphs, patience=0)
    for ours, theirs in zip(all_found(), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    all_found()
    assert compiled.why_not is None
    assert len(graphs.seen) == 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler needs g++")
@pytest.mark.timeout(900)
def test_the_compiler_itself_changes_nothing_but_last_digits(
    backbone: StableDiffusionBackbone,
) -> None:
    before = noise(backbone, 2, 0.5), slope(backbone, 2)
    compiled = backbone.compile(patience=0)
    after = noise(backbone, 2, 0.5), slope(backbone, 2)
    assert compiled.why_not is None
    for ours, theirs in zip(after, before, strict=True):
        assert not torch.equal(ours, theirs)  # so it is another program
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_graphs_are_kept_in_the_cache_unless_another_folder_is_named(
    backbone: StableDiffusionBackbone,
    graphs: Graphs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ZEROCON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(CACHE, str(tmp_path))
    backbone.compile(graphs)
    assert os.environ[CACHE] == str(tmp_path)
    monkeypatch.delenv(CACHE)
    backbone.compile(graphs)
    assert os.environ[CACHE] == str(tmp_path / "cache" / "compiled")
    monkeypatch.delenv(CACHE)


@pytest.mark.parametrize(
    ("device", "cases", "said"), [("cuda", 700, True), ("cuda", 699, False), ("cpu", 10_000, False)]
)
def test_auto_compiles_on_a_gpu_from_a_number_of_cases_on(
    device: str, cases: int, said: bool
) -> None:
    assert pays(torch.device(device), cases) is said


def test_the_setting_decides_whether_a_run_is_compiled(backbone: StableDiffusionBackbone) -> None:
    backbone.compiling = "auto"
    backbone.expect(10_000)  # on a processor
    assert not is_compiled(backbone)
    backbone.compiling = True
    backbone.expect(1)
    assert is_compiled(backbone)


@pytest.mark.parametrize("choice", ["shapes", "sd15", "shapes_flow", "flux"])
def test_what_compile_can_be(choice: str) -> None:
    for said in ("true", "false", "auto"):
        compose_settings([f"backbone={choice}", f"backbone.compile={said}", "mixed_worlds=true"])
    with pytest.raises(ConfigError, match=r"backbone\.compile"):
        compose_settings([f"backbone={choice}", "backbone.compile=often", "mixed_worlds=true"])
