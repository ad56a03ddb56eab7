"""Sites, reading and replacing, on a small random U-Net with Stable Diffusion's topology."""

from __future__ import annotations

import copy
import math
import shutil
from dataclasses import replace as changed
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from tests.tiny import eps, tiny_backbone
from zerocon.backbones.loading import Parts
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.conditions import Condition
from zerocon.core.forward import predict, run_for_taps
from zerocon.core.levels import vp_level
from zerocon.core.taps import Pattern, SitesError, choose, record, replace, shared

TIME = 401
LEVEL = vp_level(TIME, 0.4)


def inputs(rows: int = 2) -> tuple[Tensor, Condition]:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(rows, 4, 16, 16, generator=generator)
    return z, Condition(torch.randn(rows, 77, 32, generator=generator))


def state(backbone: StableDiffusionBackbone) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in backbone.unet.state_dict().items()}


def test_the_sites_are_stable_diffusions(backbone: StableDiffusionBackbone) -> None:
    sites = backbone.taps.sites
    kinds = [site.kind for site in sites]
    assert (kinds.count("self"), kinds.count("cross"), kinds.count("res")) == (16, 16, 22)
    assert kinds.count("block") == 1 + 8 + 2 + 12  # the first convolution, then every layer
    named = {site.name: site for site in sites}
    assert named["up.1.2.self"].scale == 4
    assert named["mid.0.0.cross"].scale == 8
    # MasaCtrl's "layer 10": after 6 of the encoder and 1 in the middle, the fourth decoder one.
    assert named["up.2.0.self"].number == 10
    assert [s.name for s in choose(sites, "self#0,self#6,self#15", "output")] == [
        "down.0.0.self",
        "mid.0.0.self",
        "up.3.2.self",
    ]


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("cross", 16),
        ("up.*.self", 9),
        ("up.*.self,!up.1.0.*", 8),
        ("self@1/4", 5),
        ("cross@1/8,cross@1/4", 6),
        ("self#10..15", 6),
        ("down.?.1.cross", 3),
        ("*", 32),
    ],
)
def test_patterns(backbone: StableDiffusionBackbone, pattern: str, count: int) -> None:
    assert len(choose(backbone.taps.sites, pattern, "queries")) == count


@pytest.mark.parametrize("pattern", ["up.9.*", "res", "self#40", "cross@1/3", "!up.*"])
def test_a_pattern_without_sites_is_an_error(
    backbone: StableDiffusionBackbone, pattern: str
) -> None:
    with pytest.raises(SitesError, match=r"no site with output matches .*up\.1\.2\.self"):
        choose(backbone.taps.sites, pattern, "output")


@pytest.mark.parametrize("pattern", ["", "up.*.self,", "self@4", "self#a"])
def test_a_pattern_that_cannot_be_read_is_an_error(pattern: str) -> None:
    with pytest.raises(SitesError, match="chooses no sites"):
        [Pattern.read(part) for part in pattern.split(",")]


def test_what_is_recorded_is_what_diffusers_computes(
    parts: Parts, backbone: StableDiffusionBackbone
) -> None:
    z, cond = inputs()
    theirs: list[Tensor] = []

    class Spy(AttnProcessor):
        def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            context = args[0] if args else kwargs.get("encoder_hidden_states")
            if context is not None:
                queries = attn.head_to_batch_dim(attn.to_q(hidden_states))
                keys = attn.head_to_batch_dim(attn.to_k(context))
                probs = attn.get_attention_scores(queries, keys)
                theirs.append(probs.unflatten(0, (-1, attn.heads)))
            return super().__call__(attn, hidden_states, *args, **kwargs)

    plain = copy.deepcopy(parts.unet)
    plain.set_attn_processor(Spy())
    with torch.no_grad():
        expected = plain(z, TIME, cond.tokens).sample
        with record(backbone.taps, "cross", "probs") as seen:
            ours = eps(backbone, z, TIME, cond)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    assert len(seen) == len(theirs) == 16
    for mine, his in zip(seen.of("all"), theirs, strict=True):
        torch.testing.assert_close(mine, his, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(mine.sum(-1), torch.ones(mine.shape[:-1]))


@torch.no_grad()
def test_features_are_the_second_convolutions(backbone: StableDiffusionBackbone) -> None:
    z, cond = inputs()
    caught: list[Tensor] = []
    block = backbone.unet.up_blocks[1].resnets[1]
    hook = block.register_forward_hook(
        lambda m, args, out: caught.append(
            (out * m.output_scale_factor) - (m.conv_shortcut(args[0]) if m.conv_shortcut else 0)
        )
    )
    with record(backbone.taps, "up.1.1.res", "features") as seen:
        eps(backbone, z, TIME, cond)
    hook.remove()
    torch.testing.assert_close(seen.of("all")[0], caught[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("site", "shape"),
    [
        ("in.0.0.block", (2, 8, 16, 16)),
        ("down.0.1.block", (2, 8, 16, 16)),
        ("down.3.1.block", (2, 16, 2, 2)),
        ("mid.0.0.block", (2, 16, 2, 2)),
        ("up.3.2.block", (2, 8, 16, 16)),
    ],
)
def test_hidden_is_the_state_as_it_leaves_a_layer(
    backbone: StableDiffusionBackbone, site: str, shape: tuple[int, ...]
) -> None:
    """The state itself: what is changed there passes on."""
    z, cond = inputs()
    with record(backbone.taps, site, "hidden") as seen:
        plain = eps(backbone, z, TIME, cond)
    assert seen.of("all")[0].shape == shape
    with replace(backbone.taps, site, "hidden", lambda _s, rows: {"all": rows["all"] * 1.5}):
        assert not torch.allclose(eps(backbone, z, TIME, cond), plain)
    assert torch.equal(eps(backbone, z, TIME, cond), plain)


@torch.no_grad()
def test_rows_are_addressed_by_role(backbone: StableDiffusionBackbone) -> None:
    z, cond = inputs(4)
    with record(backbone.taps, "up.1.2.self", "output") as seen:
        predict(backbone, LEVEL, {"source": (z[:2], cond[:2]), "target": (z[2:], cond[2:])})
        both = {role: seen["up.1.2.self"][role] for role in ("source", "target")}
        eps(backbone, z[2:], TIME, cond[2:])
        alone = seen["up.1.2.self"]["all"]
    assert both["source"].shape == (2, 16, 16)  # 4 × 4 positions
    torch.testing.assert_close(both["target"], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_shared_queries_and_keys_are_shared_probabilities(
    backbone: StableDiffusionBackbone,
) -> None:
    z, cond = inputs()
    rows = {"source": (z[:1], cond[:1]), "target": (z[1:], cond[1:])}
    taps, site = backbone.taps, "down.0.0.self"
    give = shared("source", "target")
    with (
        replace(taps, site, "queries", give),
        replace(taps, site, "keys", give),
        record(taps, site, "probs") as seen,
    ):
        changed = {role: g.noise for role, g in predict(backbone, LEVEL, rows).items()}
    assert torch.equal(seen[site]["source"], seen[site]["target"])
    plain = {role: g.noise for role, g in predict(backbone, LEVEL, rows).items()}
    torch.testing.assert_close(plain["source"], changed["source"])  # rows are independent
    assert not torch.allclose(plain["target"], changed["target"])


@torch.no_grad()
def test_everything_shared_is_the_source(backbone: StableDiffusionBackbone) -> None:
    z, cond = inputs()
    give = shared("source", "target")
    with replace(backbone.taps, "up.3.2.cross", "output", give):
        found = predict(backbone, LEVEL, {"source": (z[:1], cond[:1]), "target": (z[:1], cond[1:])})
    assert not torch.allclose(
        found["source"].noise, found["target"].noise
    )  # the layers before differ
    with replace(backbone.taps, "cross", "output", give):
        found = predict(backbone, LEVEL, {"source": (z[:1], cond[:1]), "target": (z[:1], cond[1:])})
    assert torch.equal(
        found["source"].noise, found["target"].noise
    )  # the text reaches the target nowhere


def test_an_unknown_role_is_an_error(backbone: StableDiffusionBackbone) -> None:
    z, cond = inputs()
    with (
        replace(backbone.taps, "cross", "output", shared("all", "target")),
        pytest.raises(KeyError, match="no rows are called"),
    ):
        eps(backbone, z, TIME, cond)


@torch.no_grad()
def test_nested_taps_get_the_outer_ones_results(backbone: StableDiffusionBackbone) -> None:
    z, cond = inputs(1)
    site = "up.1.2.self"
    with replace(backbone.taps, site, "output", lambda _s, rows: {"all": rows["all"] * 0}):
        with record(backbone.taps, site, "output") as inner:
            eps(backbone, z, TIME, cond)
        assert inner[site]["all"].abs().max() == 0
    with record(backbone.taps, site, "output") as after:
        eps(backbone, z, TIME, cond)
    assert after[site]["all"].abs().max() > 0


@torch.no_grad()
def test_taps_leave_nothing_behind(backbone: StableDiffusionBackbone) -> None:
    z, cond = inputs()
    before, weights = eps(backbone, z, TIME, cond), state(backbone)
    with record(backbone.taps, "*", "probs"), record(backbone.taps, "res", "features"):
        eps(backbone, z, TIME, cond)

    def broken(_site: Any, _rows: Any) -> dict[str, Tensor]:
        raise RuntimeError("midway")

    with (
        pytest.raises(RuntimeError, match="midway"),
        backbone.taps.labelled(("a", "b"), 1),
        replace(backbone.taps, "mid.*.self", "values", broken),
    ):
        eps(backbone, z, TIME, cond)
    assert backbone.taps.stack == []
    assert backbone.taps.rows == {}
    assert torch.equal(eps(backbone, z, TIME, cond), before)
    after = state(backbone)
    assert weights.keys() == after.keys()
    assert all(torch.equal(weights[k], after[k]) for k in weights)


def test_gradients_reach_the_latent_only(backbone: StableDiffusionBackbone) -> None:
    z, cond = inputs()
    z.requires_grad_()
    with record(backbone.taps, "cross", "probs") as seen:
        eps(backbone, z, TIME, cond)
    sum(m.square().sum() for m in seen.of("all")).backward()  # pyright: ignore[reportAttributeAccessIssue]
    assert z.grad is not None
    assert z.grad.abs().max() > 0
    assert all(p.grad is None for p in backbone.unet.parameters())


@torch.no_grad()
def test_a_forward_pass_stops_after_its_last_site(backbone: StableDiffusionBackbone) -> None:
    z, cond = inputs()
    ran: list[str] = []
    hooks = [
        block.register_forward_hook(lambda *_, n=name: ran.append(n))
        for name, block in (
            ("down", backbone.unet.down_blocks[0]),
            ("mid", backbone.unet.mid_block),
            ("up", backbone.unet.up_blocks[3]),
        )
    ]
    with record(backbone.taps, "down.*.self,mid.*.self", "output", stop=True) as seen:
        run_for_taps(backbone, LEVEL, {"target": (z, cond)})
    for hook in hooks:
        hook.remove()
    assert len(seen) == 7
    assert ran == ["down"]
    with record(backbone.taps, "mid.*.self", "output") as full:
        predict(backbone, LEVEL, {"target": (z, cond)})
    assert torch.equal(full.of("target")[0], seen.of("target")[-1])


@torch.no_grad()
def test_evaluations_are_counted(backbone: StableDiffusionBackbone) -> None:
    z, cond = inputs()
    before = copy.copy(backbone.evaluations)
    eps(backbone, z, TIME, cond)
    with torch.enable_grad():
        eps(backbone, z[:1].detach().requires_grad_(), TIME, cond[:1])
    assert backbone.evaluations.forward - before.forward == 3
    assert backbone.evaluations.backward - before.backward == 1


@pytest.mark.slow
@torch.no_grad()
def test_taps_work_on_a_compiled_network(parts: Parts) -> None:
    backbone = tiny_backbone(copy.deepcopy(parts))
    z, cond = inputs()
    rows = {"source": (z[:1], cond[:1]), "target": (z[1:], cond[1:])}
    give = shared("source", "target")

    def all_three() -> tuple[Any, Any, Any]:
        plain = predict(backbone, LEVEL, rows)["target"].noise
        with record(backbone.taps, "up.1.2.cross", "probs") as seen:
            predict(backbone, LEVEL, rows)
        with replace(backbone.taps, "up.1.*.self", "queries", give):
            swapped = predict(backbone, LEVEL, rows)["target"].noise
        return plain, seen.of("target")[0], swapped

    eager = all_three()
    backbone.unet.compile(backend="eager", fullgraph=True)  # a break in the graph is an error
    for ours, expected in zip(all_three(), eager, strict=True):
        torch.testing.assert_close(ours, expected)
    compiled = all_three()[0]
    assert math.isclose((compiled - eager[0]).abs().max().item(), 0.0, abs_tol=1e-6)
    assert backbone.taps.stack == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(shutil.which("g++") is None, reason="generates C++")
def test_taps_work_where_inductor_generates_code(parts: Parts) -> None:
    """With a smaller network: each recording is compiled separately, which takes a minute."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    backbone = tiny_backbone(changed(parts, unet=unet))
    z, cond = inputs()

    def both() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            plain = eps(backbone, z, TIME, cond)
        moving = z.clone().requires_grad_()
        with record(backbone.taps, "cross", "probs") as seen:
            predict(backbone, LEVEL, {"target": (moving, cond)})
            loss = sum((m.square().sum() for m in seen.of("target")), torch.zeros(()))
        return plain, torch.autograd.grad(loss, moving)[0]

    expected = both()
    backbone.unet.compile(fullgraph=True)
    for ours, theirs in zip(both(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert backbone.taps.stack == []
