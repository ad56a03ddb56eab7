"""Sites in joint attention: read activations equal diffusers', and replaced ones take effect."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from diffusers.models.attention_processor import Attention, JointAttnProcessor2_0
from diffusers.models.transformers import transformer_flux
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxAttnProcessor
from torch import Tensor

from tests.tiny_transformers import tiny_flux, tiny_flux_parts, tiny_sd3, tiny_sd3_parts
from zerocon.backbones.base import BackboneError
from zerocon.backbones.flux import FluxBackbone, FluxParts
from zerocon.backbones.mmdit_sites import install
from zerocon.backbones.sd3 import SD3Backbone
from zerocon.core.conditions import Condition
from zerocon.core.forward import predict, run_for_taps
from zerocon.core.taps import SilentSiteError, SitesError, choose, record, replace, shared

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dual": {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)},
    "without T5": {"t5": False},
    "flux": {},
    "flux, one stream": {},
}
PROMPTS = ["a big red circle on a gray background", "a small blue house at the beach"]
SIZE = (24, 40)
IMAGE, T5_TOKENS = 6 * 10, 20
Tiny = SD3Backbone | FluxBackbone


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def backbone(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """In double precision, so that errors are not hidden by rounding."""
    make = tiny_flux_parts if kind.startswith("flux") else tiny_sd3_parts
    parts: Any = make(tmp_path_factory.mktemp("parts"), **KINDS[kind])
    for weight in (w for n, w in parts.transformer.named_parameters() if "to_q" in n):
        weight.data.mul_(4)  # attention that is not nearly even
    if isinstance(parts, FluxParts):
        return tiny_flux(parts, size=SIZE, dtype=torch.float64, t5_tokens=T5_TOKENS)
    return tiny_sd3(parts, size=SIZE, dtype=torch.float64)


@pytest.fixture(scope="module")
def stream(kind: str) -> str:
    """The blocks that a test uses."""
    return "single" if kind == "flux, one stream" else "joint"


@pytest.fixture(autouse=True)
def precise_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers rotates in single precision; here it keeps the given precision."""

    def apply(x: Tensor, freqs: tuple[Tensor, Tensor], **_: Any) -> Tensor:
        return turned(x, freqs, tokens=1)

    monkeypatch.setattr(transformer_flux, "apply_rotary_emb", apply)


def turned(x: Tensor, freqs: tuple[Tensor, Tensor], tokens: int) -> Tensor:
    """Pairs of channels as complex numbers, times e^(i angle); `tokens`: the axis of the tokens."""
    cos, sin = (f.double().unsqueeze(1) if tokens == 1 else f.double() for f in freqs)
    angle = torch.complex(cos, sin)[..., ::2]
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * angle).flatten(-2)


def inputs(backbone: Tiny) -> tuple[Tensor, Condition]:
    z = torch.randn(2, 16, 12, 20, generator=torch.Generator().manual_seed(0)).double()
    return z, backbone.embed(PROMPTS)


def heads(attn: Any, norm: Any, projected: Tensor) -> Tensor:
    """[row, head, token, width], normalised if the attention does that."""
    by_head = projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    return by_head if norm is None else norm(by_head)


class Spy(JointAttnProcessor2_0):
    """diffusers' processor, which also records its softmax over all tokens."""

    seen: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, **more: Any
    ) -> Any:
        queries = heads(attn, attn.norm_q, attn.to_q(hidden_states))
        keys = heads(attn, attn.norm_k, attn.to_k(hidden_states))
        if encoder_hidden_states is not None:
            text = heads(attn, attn.norm_added_k, attn.add_k_proj(encoder_hidden_states))
            keys = torch.cat([keys, text], 2)
        scores = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
        self.seen.append(scores.softmax(-1))
        return super().__call__(attn, hidden_states, encoder_hidden_states, **more)


class FluxSpy(FluxAttnProcessor):
    """As `Spy`, for FLUX: text tokens first, and all are rotated."""

    seen: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: Any = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        queries = heads(attn, attn.norm_q, attn.to_q(hidden_states))
        keys = heads(attn, attn.norm_k, attn.to_k(hidden_states))
        if encoder_hidden_states is not None:
            text = attn.add_q_proj(encoder_hidden_states), attn.add_k_proj(encoder_hidden_states)
            queries = torch.cat([heads(attn, attn.norm_added_q, text[0]), queries], 2)
            keys = torch.cat([heads(attn, attn.norm_added_k, text[1]), keys], 2)
        queries, keys = (turned(x, image_rotary_emb, tokens=2) for x in (queries, keys))
        scores = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
        self.seen.append(scores.softmax(-1)[:, :, T5_TOKENS:])
        return super().__call__(
            attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
        )


def all_blocks(transformer: Any) -> list[Any]:
    """All blocks in execution order."""
    single = getattr(transformer, "single_transformer_blocks", ())
    return [*transformer.transformer_blocks, *single]


def block_of(backbone: Tiny, place: str) -> Any:
    kind, number = place.split(".")
    blocks = {"joint": "transformer_blocks", "single": "single_transformer_blocks"}[kind]
    return getattr(backbone.transformer, blocks)[int(number)]


def spied_velocity(backbone: Tiny, z: Tensor, cond: Condition) -> tuple[Tensor, list[Tensor]]:
    """diffusers' velocity and maps; without T5, with all zeros written out."""
    theirs = copy.deepcopy(backbone.transformer)
    for block in all_blocks(theirs):
        block._forward_hooks.clear()
    spy = FluxSpy() if isinstance(backbone, FluxBackbone) else Spy()
    theirs.set_attn_processor(spy)
    if isinstance(backbone, FluxBackbone):
        return _flux_velocity(theirs, z, cond), spy.seen
    tokens = cond.tokens
    if backbone.layout.copies > 1:
        zeros = tokens[:, -1:].expand(-1, backbone.layout.copies - 1, -1)
        tokens = torch.cat([tokens, zeros], 1)
    time = torch.full((2,), 700.0)
    return theirs(z, tokens, cond.pooled, time, return_dict=False)[0], spy.seen


def _flux_velocity(theirs: Any, z: Tensor, cond: Condition) -> Tensor:
    tokens = theirs(
        hidden_states=FluxPipeline._pack_latents(z, 2, 16, 12, 20),
        encoder_hidden_states=cond.tokens,
        pooled_projections=cond.pooled,
        timestep=torch.full((2,), 0.7),
        img_ids=FluxPipeline._prepare_latent_image_ids(2, 6, 10, z.device, torch.float32),
        txt_ids=torch.zeros(T5_TOKENS, 3),
        guidance=torch.ones(2),
        return_dict=False,
    )[0]
    return FluxPipeline._unpack_latents(tokens, 24, 40, 2)


def joint(maps: list[Tensor]) -> list[Tensor]:
    """The maps over image and text tokens."""
    return [m for m in maps if m.shape[-1] > IMAGE]


def image_columns(backbone: Tiny, found: Tensor) -> Tensor:
    return found[..., -IMAGE:] if isinstance(backbone, FluxBackbone) else found[..., :IMAGE]


def text_columns(backbone: Tiny, found: Tensor) -> Tensor:
    """Without T5, the last column is the sum over all of T5's zeros."""
    if isinstance(backbone, FluxBackbone):
        return found[..., :T5_TOKENS]
    text = found[..., IMAGE:]
    if backbone.layout.copies == 1:
        return text
    return torch.cat([text[..., :77], text[..., 77:].sum(-1, keepdim=True)], -1)


@pytest.mark.parametrize("name", ["plain", "dual", "without T5"])
def test_the_sites(name: str, tmp_path: Path) -> None:
    backbone = tiny_sd3(tiny_sd3_parts(tmp_path, **KINDS[name]), size=SIZE)
    sites = backbone.taps.sites
    kinds = [site.kind for site in sites]
    duals = sum(block.attn2 is not None for block in backbone.transformer.transformer_blocks)
    assert (kinds.count("self"), kinds.count("cross"), kinds.count("res")) == (3 + duals, 3, 3)
    names = [site.name for site in sites]
    assert names[:2] == ["joint.0.self", "joint.0.cross"]
    assert ("joint.1.dual.self" in names) == bool(duals)
    assert names[-1] == "joint.2.block"
    site = sites[1]
    assert (site.grid, site.scale) == ((6, 10), 2)
    assert site.image == (0, 60)
    assert site.text == (60, 60 + backbone.embed(PROMPTS).tokens.shape[1])
    assert [s.name for s in choose(sites, "cross#1..2", "probs")] == [
        "joint.1.cross",
        "joint.2.cross",
    ]
    with pytest.raises(SitesError, match="no site with rotated_keys"):
        choose(sites, "*", "rotated_keys")
    with pytest.raises(SitesError, match=r"no site with output matches 'cross'"):
        choose(sites, "cross", "output")


def test_fluxs_sites(tmp_path: Path) -> None:
    """Blocks with two streams, then those with one; text tokens first; positions rotated in."""
    backbone = tiny_flux(tiny_flux_parts(tmp_path), size=SIZE, t5_tokens=T5_TOKENS)
    sites = backbone.taps.sites
    places = "joint.0", "joint.1", "single.0", "single.1"
    assert [s.name for s in sites] == [
        f"{place}.{kind}" for place in places for kind in ("self", "cross", "block")
    ]
    assert {(s.grid, s.scale, s.image) for s in sites} == {((6, 10), 2, (20, 80))}
    assert {s.text for s in sites if s.kind != "res"} == {(0, 20)}
    assert [s.name for s in choose(sites, "single.*.self", "rotated_queries")] == [
        "single.0.self",
        "single.1.self",
    ]
    with pytest.raises(SitesError, match="no site with rotated_queries"):
        choose(sites, "cross", "rotated_queries")


@torch.no_grad()
def test_probabilities_are_slices_of_the_joint_softmax(backbone: Tiny) -> None:
    z, cond = inputs(backbone)
    expected, maps = spied_velocity(backbone, z, cond)
    with (
        record(backbone.taps, "cross", "probs") as cross,
        record(backbone.taps, "self", "probs") as own,
    ):
        found = backbone.predict(z, backbone.level(0.7), cond).velocity
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    for ours, theirs in zip(cross.of("all"), joint(maps), strict=True):
        torch.testing.assert_close(ours, text_columns(backbone, theirs), rtol=0, atol=1e-9)
        assert ours.std() > 1e-4
    for ours, theirs in zip(own.of("all"), maps, strict=True):
        torch.testing.assert_close(ours, image_columns(backbone, theirs), rtol=0, atol=1e-9)


@torch.no_grad()
def test_reading_changes_nothing(backbone: Tiny) -> None:
    z, cond = inputs(backbone)
    plain = backbone.predict(z, backbone.level(0.7), cond).velocity
    taps = backbone.taps
    rotated = ("rotated_queries", "rotated_keys") if backbone.layout.rotary else ()
    usual = ("queries", "keys", "values", "probs", "output", "text", "features", "hidden")
    for what in (*usual, *rotated):
        with record(taps, "*", what) as seen:
            assert torch.equal(backbone.predict(z, backbone.level(0.7), cond).velocity, plain)
            assert len(seen) == len(seen.sites)
    assert taps.stack == []


WHAT_SHAPES = {
    ("self", "queries"): (2, 2, 60, 8),
    ("cross", "queries"): (2, 2, 60, 8),
    ("self", "keys"): (2, 2, 60, 8),
    ("self", "output"): (2, 60, 16),
    ("block", "output"): (2, 60, 16),
    ("block", "features"): (2, 16, 6, 10),
    ("block", "hidden"): (2, 16, 6, 10),
}
ROTATED_SHAPES = {
    ("self", "rotated_queries"): (2, 2, 60, 8),
    ("self", "rotated_keys"): (2, 2, 60, 8),
    ("cross", "rotated_keys"): (2, 2, 20, 8),
}


@torch.no_grad()
def test_shapes_of_activations(backbone: Tiny, stream: str) -> None:
    z, cond = inputs(backbone)
    text = cond.tokens.shape[1]
    shapes: dict[Any, Any] = WHAT_SHAPES | {
        ("cross", "values"): (2, 2, text, 8),
        ("cross", "text"): (2, text, 16),
    }
    for (site, what), shape in (
        shapes | (ROTATED_SHAPES if backbone.layout.rotary else {})
    ).items():
        with record(backbone.taps, f"{stream}.1.{site}", what) as seen:
            backbone.predict(z, backbone.level(0.7), cond)
        assert seen.of("all")[0].shape == shape


@torch.no_grad()
@pytest.mark.parametrize("site", ["cross", "self"])
def test_replaced_probabilities_change_no_others(backbone: Tiny, stream: str, site: str) -> None:
    """The image tokens' result is that of the changed slice and the unchanged one."""
    z, cond = inputs(backbone)
    taps, level = backbone.taps, backbone.level(0.7)
    name, other = f"{stream}.1.{site}", f"{stream}.1.{'self' if site == 'cross' else 'cross'}"
    caught: list[tuple[Tensor, Tensor]] = []  # image, text
    attention = block_of(backbone, f"{stream}.1").attn

    def catch(_module: Any, _inputs: Any, out: Any) -> None:
        one_stream = isinstance(out, Tensor)
        caught.append((out[:, T5_TOKENS:], out[:, :T5_TOKENS]) if one_stream else out)

    hook = attention.register_forward_hook(catch)
    with (
        record(taps, name, "probs") as probs,
        record(taps, name, "values") as values,
        record(taps, other, "probs") as rest,
        record(taps, other, "values") as rest_values,
    ):
        backbone.predict(z, level, cond)
    before = probs.of("all")[0]
    new = before.flip(-1) * 0.5
    with replace(taps, name, "probs", lambda _s, rows: {"all": rows["all"].flip(-1) * 0.5}):
        backbone.predict(z, level, cond)
    hook.remove()
    mixed = new @ values.of("all")[0] + rest.of("all")[0] @ rest_values.of("all")[0]
    expected = mixed.transpose(1, 2).flatten(2)
    if stream == "joint":  # the others project it with their feed-forward network
        expected = attention.to_out[0](expected)
    torch.testing.assert_close(caught[1][0], expected, rtol=0, atol=1e-9)
    assert torch.equal(caught[1][1], caught[0][1])  # the text tokens' result
    assert not torch.allclose(caught[1][0], caught[0][0], atol=1e-3)


@torch.no_grad()
def test_rows_take_from_other_rows(backbone: Tiny) -> None:
    """With the source's image and text keys and values everywhere, the text reaches nothing."""
    z, cond = inputs(backbone)
    rows = {"source": (z[:1], cond[:1]), "target": (z[:1], cond[1:])}
    rows["target"] = (z[:1], Condition(cond[1:].tokens, cond[:1].pooled))
    plain = predict(backbone, backbone.level(0.7), rows)
    give = shared("source", "target")
    assert not torch.allclose(plain["source"].clean, plain["target"].clean)
    with (
        replace(backbone.taps, "cross", "keys", give),
        replace(backbone.taps, "cross", "values", give),
    ):
        same = predict(backbone, backbone.level(0.7), rows)
    torch.testing.assert_close(same["source"].clean, same["target"].clean)
    torch.testing.assert_close(same["source"].clean, plain["source"].clean)
    with replace(backbone.taps, "cross", "text", give):
        same = predict(backbone, backbone.level(0.7), rows)
    torch.testing.assert_close(same["source"].clean, same["target"].clean)


@torch.no_grad()
def test_features_are_what_a_block_adds(backbone: Tiny, stream: str) -> None:
    z, cond = inputs(backbone)
    level, taps, block = backbone.level(0.7), backbone.taps, f"{stream}.1.block"
    with (
        record(taps, f"{stream}.0.block,{block}", "output") as output,
        record(taps, block, "features") as features,
    ):
        plain = backbone.predict(z, level, cond).clean
    before, after = output.of("all")
    added = (after - before).transpose(1, 2).unflatten(2, (6, 10))
    torch.testing.assert_close(features.of("all")[0], added)
    with (
        replace(taps, block, "features", lambda _s, rows: {"all": rows["all"] * 0}),
        record(taps, f"{stream}.0.block,{block}", "output") as output,
    ):
        without = backbone.predict(z, level, cond).clean
    torch.testing.assert_close(*output.of("all"))
    assert not torch.allclose(plain, without)


@torch.no_grad()
def test_hidden_is_a_blocks_output_on_the_grid(backbone: Tiny, stream: str) -> None:
    z, cond = inputs(backbone)
    level, taps, block = backbone.level(0.7), backbone.taps, f"{stream}.1.block"
    with record(taps, block, "output") as output, record(taps, block, "hidden") as hidden:
        plain = backbone.predict(z, level, cond).clean
    on_grid = output.of("all")[0].transpose(1, 2).unflatten(2, (6, 10))
    assert torch.equal(hidden.of("all")[0], on_grid)
    with replace(taps, block, "hidden", lambda _s, rows: {"all": rows["all"] * 2}):
        doubled = backbone.predict(z, level, cond).clean
    with replace(taps, block, "output", lambda _s, rows: {"all": rows["all"] * 2}):
        assert torch.equal(backbone.predict(z, level, cond).clean, doubled)
    assert not torch.allclose(doubled, plain)


def test_gradients_are_those_of_the_written_out_softmax(backbone: Tiny) -> None:
    z, cond = inputs(backbone)
    moving = z.clone().requires_grad_()

    def slope(maps: list[Tensor]) -> Tensor:
        weights = torch.randn(maps[0].shape, generator=torch.Generator().manual_seed(3)).double()
        loss = sum(((m * weights).square().sum() for m in maps), torch.zeros(()))
        return torch.autograd.grad(loss, moving)[0]

    with record(backbone.taps, "cross", "probs") as seen:
        backbone.predict(moving, backbone.level(0.7), cond)
        fused = slope(seen.of("all"))
    _, maps = spied_velocity(backbone, moving, cond)
    text = [text_columns(backbone, m) for m in joint(maps)]
    torch.testing.assert_close(fused, slope(text), rtol=1e-7, atol=1e-9)
    assert fused.abs().max() > 1e-6


@torch.no_grad()
def test_a_forward_pass_stops_after_its_last_site(backbone: Tiny, stream: str) -> None:
    """Although both are recorded at one block, and its probabilities come before its output."""
    z, cond = inputs(backbone)
    ran: list[int] = []
    blocks = all_blocks(backbone.transformer)
    hooks = [b.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, b in enumerate(blocks)]
    for first, second in (
        (("cross", "probs"), ("self", "output")),
        (("self", "output"), ("cross", "probs")),
    ):
        ran.clear()
        with (
            record(backbone.taps, f"{stream}.1.{first[0]}", first[1], stop=True) as one,
            record(backbone.taps, f"{stream}.1.{second[0]}", second[1], stop=True) as two,
        ):
            run_for_taps(backbone, backbone.level(0.7), {"target": (z, cond)})
            run_for_taps(backbone, backbone.level(0.7), {"target": (z, cond)})
        assert len(one) == len(two) == 1
        assert ran == 2 * list(range(blocks.index(block_of(backbone, f"{stream}.1"))))
    for hook in hooks:
        hook.remove()


@pytest.fixture
def upgraded(backbone: Tiny, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """Simulate a version of diffusers that ignores the processor and runs its own attention."""
    flux = isinstance(backbone, FluxBackbone)
    own: Any = FluxAttnProcessor() if flux else JointAttnProcessor2_0()

    def forward(
        self: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, **more: Any
    ) -> Any:
        return own(self, hidden_states, encoder_hidden_states, **more)

    monkeypatch.setattr(FluxAttention if flux else Attention, "forward", forward)
    return backbone


@torch.no_grad()
def test_an_incompatible_diffusers_is_an_error(upgraded: Tiny, stream: str) -> None:
    z, cond = inputs(upgraded)
    rows = {"source": (z[:1], cond[:1]), "target": (z[1:], cond[1:])}
    with (
        pytest.raises(
            SilentSiteError, match=rf"no keys passed {stream}\.1\.self during a forward pass"
        ),
        replace(upgraded.taps, f"{stream}.1.self", "keys", shared("source", "target")),
    ):
        predict(upgraded, upgraded.level(0.7), rows)
    with (
        pytest.raises(SilentSiteError, match=r"no probs passed joint\.0\.cross, joint\.1\.cross"),
        record(upgraded.taps, "cross", "probs", stop=True),
    ):
        run_for_taps(upgraded, upgraded.level(0.7), rows)
    assert upgraded.taps.stack == []
    if upgraded.layout.copies > 1:
        with pytest.raises(BackboneError, match="ran 0 times in a forward pass, not 3 times"):
            upgraded.predict(z, upgraded.level(0.7), cond)
    else:
        assert upgraded.predict(z, upgraded.level(0.7), cond).clean.isfinite().all()


class Renamed(torch.nn.Module):
    """An attention without processors, as another version of diffusers may have."""


def test_a_renamed_attention_class_is_an_error(backbone: Tiny, stream: str) -> None:
    transformer = copy.deepcopy(backbone.transformer)
    blocks = getattr(transformer, f"{'single_' if stream == 'single' else ''}transformer_blocks")
    blocks[1].attn = Renamed()
    with pytest.raises(BackboneError, match=r"has no attention 'attn' that takes a processor"):
        install(transformer, backbone.layout)


@torch.no_grad()
def test_another_processor_is_an_error(backbone: Tiny, stream: str) -> None:
    ours = copy.deepcopy(backbone)  # its hooks and processors, and what they look into, as well
    z, cond = inputs(ours)
    block = block_of(ours, f"{stream}.1")
    block._forward_hooks.clear()
    with (
        pytest.raises(SilentSiteError, match=rf"no features passed {stream}\.1\.block during"),
        record(ours.taps, "res", "features"),
    ):
        ours.predict(z, ours.level(0.7), cond)
    flux = isinstance(backbone, FluxBackbone)
    block.attn.set_processor(FluxAttnProcessor() if flux else JointAttnProcessor2_0())
    with (
        pytest.raises(SilentSiteError, match=rf"no probs passed {stream}\.1\.cross during"),
        record(ours.taps, "cross", "probs"),
    ):
        ours.predict(z, ours.level(0.7), cond)


@pytest.mark.slow
@torch.no_grad()
def test_taps_work_on_a_compiled_network(backbone: Tiny, stream: str) -> None:
    compiled = copy.deepcopy(backbone)
    z, cond = inputs(compiled)
    rows = {"source": (z[:1], cond[:1]), "target": (z[1:], cond[1:])}

    def all_three() -> tuple[Tensor, ...]:
        plain = predict(compiled, compiled.level(0.7), rows)["target"].clean
        with record(compiled.taps, "cross", "probs") as seen:
            predict(compiled, compiled.level(0.7), rows)
        with replace(compiled.taps, f"{stream}.1.self", "keys", shared("source", "target")):
            swapped = predict(compiled, compiled.level(0.7), rows)["target"].clean
        return plain, seen.of("target")[0], swapped

    eager = all_three()
    torch.compiler.reset()
    compiled.transformer.compile(backend="eager", fullgraph=True)
    for ours, expected in zip(all_three(), eager, strict=True):
        torch.testing.assert_close(ours, expected)
