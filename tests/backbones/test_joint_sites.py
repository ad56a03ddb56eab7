"""Sites in joint attention: what is read is what diffusers computes, what is replaced counts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, JointAttnProcessor2_0
from torch import Tensor

from tests.tiny_transformers import tiny_sd3, tiny_sd3_parts
from zerocon.backbones.base import BackboneError
from zerocon.backbones.sd3 import SD3Backbone
from zerocon.core.conditions import Condition
from zerocon.core.forward import predict, run_for_taps
from zerocon.core.taps import SilentSiteError, SitesError, choose, record, replace, shared

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dual": {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)},
    "without T5": {"t5": False},
}
PROMPTS = ["a big red circle on a gray background", "a small blue house at the beach"]
IMAGE = 6 * 10


@pytest.fixture(scope="module", params=KINDS)
def backbone(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> SD3Backbone:
    """In double precision: what is only rounding here is an error there."""
    parts = tiny_sd3_parts(tmp_path_factory.mktemp("sd3"), **KINDS[request.param])
    for weight in (w for n, w in parts.transformer.named_parameters() if "to_q" in n):
        weight.data.mul_(4)  # attention that is not nearly even
    return tiny_sd3(parts, size=(24, 40), dtype=torch.float64)


def inputs(backbone: SD3Backbone) -> tuple[Tensor, Condition]:
    z = torch.randn(2, 16, 12, 20, generator=torch.Generator().manual_seed(0)).double()
    return z, backbone.embed(PROMPTS)


class Spy(JointAttnProcessor2_0):
    """diffusers' processor, and the softmax that it takes, over all tokens as its tokens are."""

    seen: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, **more: Any
    ) -> Any:
        queries, keys = (
            norm(project(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2))
            for norm, project in (
                (attn.norm_q or torch.nn.Identity(), attn.to_q),
                (attn.norm_k or torch.nn.Identity(), attn.to_k),
            )
        )
        if encoder_hidden_states is not None:
            text = attn.add_k_proj(encoder_hidden_states)
            text = text.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            keys = torch.cat([keys, (attn.norm_added_k or torch.nn.Identity())(text)], 2)
        scores = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
        self.seen.append(scores.softmax(-1))
        return super().__call__(attn, hidden_states, encoder_hidden_states, **more)


def plain_pass(backbone: SD3Backbone, z: Tensor, cond: Condition) -> tuple[Tensor, list[Tensor]]:
    """diffusers' own: without T5, with all the zeros written out."""
    theirs, spy = copy.deepcopy(backbone.transformer), Spy()
    for block in theirs.transformer_blocks:
        block._forward_hooks.clear()
    theirs.set_attn_processor(spy)
    tokens = cond.tokens
    if backbone.layout.copies > 1:
        zeros = tokens[:, -1:].expand(-1, backbone.layout.copies - 1, -1)
        tokens = torch.cat([tokens, zeros], 1)
    time = torch.full((2,), 700.0)
    with torch.no_grad():
        velocity = theirs(z, tokens, cond.pooled, time, return_dict=False)[0]
    return velocity, spy.seen


def joint(maps: list[Tensor]) -> list[Tensor]:
    """Those over image and text tokens."""
    return [m for m in maps if m.shape[-1] > IMAGE]


def test_the_sites(backbone: SD3Backbone) -> None:
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


@torch.no_grad()
def test_probabilities_are_slices_of_the_joint_softmax(backbone: SD3Backbone) -> None:
    z, cond = inputs(backbone)
    expected, maps = plain_pass(backbone, z, cond)
    with (
        record(backbone.taps, "joint.*.cross", "probs") as cross,
        record(backbone.taps, "self", "probs") as own,
    ):
        found = backbone.predict(z, backbone.level(0.7), cond).velocity
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    for ours, theirs in zip(cross.of("all"), joint(maps), strict=True):
        text = theirs[..., IMAGE:]
        if backbone.layout.copies > 1:  # the last column is what all the zeros get
            text = torch.cat([text[..., :77], text[..., 77:].sum(-1, keepdim=True)], -1)
        torch.testing.assert_close(ours, text, rtol=0, atol=1e-9)
        assert ours.std() > 1e-4
    for ours, theirs in zip(own.of("all"), maps, strict=True):
        torch.testing.assert_close(ours, theirs[..., :IMAGE], rtol=0, atol=1e-9)


@torch.no_grad()
def test_reading_changes_nothing(backbone: SD3Backbone) -> None:
    z, cond = inputs(backbone)
    plain = backbone.predict(z, backbone.level(0.7), cond).velocity
    taps = backbone.taps
    for what in ("queries", "keys", "values", "probs", "output", "text", "features"):
        with record(taps, "*", what) as seen:
            assert torch.equal(backbone.predict(z, backbone.level(0.7), cond).velocity, plain)
            assert len(seen) == len(seen.sites)
    assert taps.stack == []


WHAT_SHAPES = {
    ("joint.1.self", "queries"): (2, 2, 60, 8),
    ("joint.1.cross", "queries"): (2, 2, 60, 8),
    ("joint.1.self", "keys"): (2, 2, 60, 8),
    ("joint.1.self", "output"): (2, 60, 16),
    ("joint.1.block", "output"): (2, 60, 16),
    ("joint.1.block", "features"): (2, 16, 6, 10),
}


@torch.no_grad()
def test_shapes_of_what_passes(backbone: SD3Backbone) -> None:
    z, cond = inputs(backbone)
    text = cond.tokens.shape[1]
    shapes: dict[Any, Any] = WHAT_SHAPES | {
        ("joint.1.cross", "values"): (2, 2, text, 8),
        ("joint.1.cross", "text"): (2, text, 16),
    }
    for (site, what), shape in shapes.items():
        with record(backbone.taps, site, what) as seen:
            backbone.predict(z, backbone.level(0.7), cond)
        assert seen.of("all")[0].shape == shape


@torch.no_grad()
@pytest.mark.parametrize("name", ["joint.1.cross", "joint.1.self"])
def test_replaced_probabilities_leave_the_others_alone(backbone: SD3Backbone, name: str) -> None:
    """The image tokens' result is that of the changed slice beside the untouched one."""
    z, cond = inputs(backbone)
    taps, level = backbone.taps, backbone.level(0.7)
    other = {"joint.1.cross": "joint.1.self", "joint.1.self": "joint.1.cross"}[name]
    caught: list[tuple[Tensor, ...]] = []
    attention = backbone.transformer.transformer_blocks[1].attn
    hook = attention.register_forward_hook(lambda _m, _a, out: caught.append(out))
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
    expected = attention.to_out[0](mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(caught[1][0], expected, rtol=0, atol=1e-9)
    assert torch.equal(caught[1][1], caught[0][1])  # the text tokens' result
    assert not torch.allclose(caught[1][0], caught[0][0], atol=1e-3)


@torch.no_grad()
def test_rows_take_from_other_rows(backbone: SD3Backbone) -> None:
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
def test_features_are_what_a_block_adds(backbone: SD3Backbone) -> None:
    z, cond = inputs(backbone)
    level, taps = backbone.level(0.7), backbone.taps
    with (
        record(taps, "joint.0.block,joint.1.block", "output") as output,
        record(taps, "joint.1.block", "features") as features,
    ):
        plain = backbone.predict(z, level, cond).clean
    before, after = output.of("all")
    added = (after - before).transpose(1, 2).unflatten(2, (6, 10))
    torch.testing.assert_close(features.of("all")[0], added)
    with (
        replace(taps, "joint.1.block", "features", lambda _s, rows: {"all": rows["all"] * 0}),
        record(taps, "joint.0.block,joint.1.block", "output") as output,
    ):
        without = backbone.predict(z, level, cond).clean
    torch.testing.assert_close(*output.of("all"))
    assert not torch.allclose(plain, without)


def test_gradients_are_those_of_the_written_out_softmax(backbone: SD3Backbone) -> None:
    z, cond = inputs(backbone)
    moving = z.clone().requires_grad_()

    def slope(maps: list[Tensor]) -> Tensor:
        weights = torch.randn(maps[0].shape, generator=torch.Generator().manual_seed(3)).double()
        loss = sum(((m * weights).square().sum() for m in maps), torch.zeros(()))
        return torch.autograd.grad(loss, moving)[0]

    with record(backbone.taps, "cross", "probs") as seen:
        backbone.predict(moving, backbone.level(0.7), cond)
        fused = slope(seen.of("all"))
    spy, theirs = Spy(), copy.deepcopy(backbone.transformer)
    theirs.set_attn_processor(spy)
    tokens = cond.tokens
    if backbone.layout.copies > 1:
        tokens = torch.cat([tokens, tokens[:, -1:].expand(-1, 255, -1)], 1)
    theirs(moving, tokens, cond.pooled, torch.full((2,), 700.0))
    text = [m[..., IMAGE:] for m in joint(spy.seen)]
    if backbone.layout.copies > 1:
        text = [torch.cat([m[..., :77], m[..., 77:].sum(-1, keepdim=True)], -1) for m in text]
    torch.testing.assert_close(fused, slope(text), rtol=1e-7, atol=1e-9)
    assert fused.abs().max() > 1e-6


@torch.no_grad()
def test_a_pass_ends_after_its_last_site(backbone: SD3Backbone) -> None:
    """Though at one block the probabilities pass before the output, and both are asked for."""
    z, cond = inputs(backbone)
    ran: list[int] = []
    blocks = backbone.transformer.transformer_blocks
    hooks = [b.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, b in enumerate(blocks)]
    for first, second in (
        (("cross", "probs"), ("self", "output")),
        (("self", "output"), ("cross", "probs")),
    ):
        ran.clear()
        with (
            record(backbone.taps, f"joint.1.{first[0]}", first[1], stop=True) as one,
            record(backbone.taps, f"joint.1.{second[0]}", second[1], stop=True) as two,
        ):
            run_for_taps(backbone, backbone.level(0.7), {"target": (z, cond)})
            run_for_taps(backbone, backbone.level(0.7), {"target": (z, cond)})
        assert len(one) == len(two) == 1
        assert ran == [0, 0]
    for hook in hooks:
        hook.remove()


@pytest.fixture
def upgraded(backbone: SD3Backbone, monkeypatch: pytest.MonkeyPatch) -> SD3Backbone:
    """As if another version of diffusers ran its own attention, whatever processor is set."""
    own = JointAttnProcessor2_0()

    def forward(
        self: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, **_: Any
    ) -> Any:
        return own(self, hidden_states, encoder_hidden_states)

    monkeypatch.setattr(Attention, "forward", forward)
    return backbone


@torch.no_grad()
def test_an_upgrade_is_an_error_not_an_unedited_picture(upgraded: SD3Backbone) -> None:
    z, cond = inputs(upgraded)
    rows = {"source": (z[:1], cond[:1]), "target": (z[1:], cond[1:])}
    with (
        pytest.raises(
            SilentSiteError, match=r"no keys passed joint\.1\.self during a forward pass"
        ),
        replace(upgraded.taps, "joint.1.self", "keys", shared("source", "target")),
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


@torch.no_grad()
def test_another_processor_is_an_error(backbone: SD3Backbone) -> None:
    ours = copy.deepcopy(backbone)  # its hooks and processors, and what they look into, as well
    z, cond = inputs(ours)
    block = ours.transformer.transformer_blocks[1]
    block._forward_hooks.clear()
    with (
        pytest.raises(SilentSiteError, match=r"no features passed joint\.1\.block during"),
        record(ours.taps, "res", "features"),
    ):
        ours.predict(z, ours.level(0.7), cond)
    block.attn.set_processor(JointAttnProcessor2_0())
    with (
        pytest.raises(SilentSiteError, match=r"no probs passed joint\.1\.cross during"),
        record(ours.taps, "cross", "probs"),
    ):
        ours.predict(z, ours.level(0.7), cond)


@pytest.mark.slow
@torch.no_grad()
def test_taps_work_on_a_compiled_network(backbone: SD3Backbone) -> None:
    compiled = copy.deepcopy(backbone)
    z, cond = inputs(compiled)
    rows = {"source": (z[:1], cond[:1]), "target": (z[1:], cond[1:])}

    def all_three() -> tuple[Tensor, ...]:
        plain = predict(compiled, compiled.level(0.7), rows)["target"].clean
        with record(compiled.taps, "cross", "probs") as seen:
            predict(compiled, compiled.level(0.7), rows)
        with replace(compiled.taps, "joint.1.self", "keys", shared("source", "target")):
            swapped = predict(compiled, compiled.level(0.7), rows)["target"].clean
        return plain, seen.of("target")[0], swapped

    eager = all_three()
    torch.compiler.reset()
    compiled.transformer.compile(backend="eager", fullgraph=True)
    for ours, expected in zip(all_three(), eager, strict=True):
        torch.testing.assert_close(ours, expected)
