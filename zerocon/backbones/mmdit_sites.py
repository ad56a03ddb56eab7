"""The one place that knows diffusers' joint attention: what a transformer's activations pass.

In joint attention image and text tokens attend to all of both. Here it shows itself as a U-Net's
two attentions do: `….self` is what passes between image tokens, `….cross` what image tokens take
from text tokens. Queries are the image tokens' at both; keys and values are the image tokens' at
`….self` and the text tokens' at `….cross`. `probs` are slices of the one softmax over all tokens,
so a row of `….self` and one of `….cross` sum to 1 together.

The attention itself stays fused, also while probabilities are read or replaced. The slice for one
kind of keys is its own softmax, times the share of the attention that these keys get of all:
`p(key) = share · softmax over its kind`. The shares come from a second fused call, whose values
are 1 for image or text keys and 0 for the others; so no matrix over all tokens is ever held, and
gradients pass. A replaced slice adds `(new - old) · values` to the output of the image tokens;
everything else stays as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zerocon.backbones.base import BackboneError
from zerocon.core.levels import at_least_single
from zerocon.core.taps import Kind, Site, Taps, What

_SELF: frozenset[What] = frozenset({"queries", "keys", "values", "probs", "output"})
_CROSS: frozenset[What] = frozenset({"queries", "keys", "values", "probs", "text"})
_ROTATED: frozenset[What] = frozenset({"rotated_queries", "rotated_keys"})
_BLOCK: frozenset[What] = frozenset({"features", "output", "hidden"})


@dataclass
class Layout:
    """How a network's tokens lie, the same in all its blocks.

    The last text token may stand for several that are equal (`copies`): its score gets log(copies)
    more, which is exactly what as many of them would get together.
    """

    grid: tuple[int, int]  # height and width of the image tokens
    text_tokens: int
    patch: int = 2  # of the latent, on a side of an image token
    text_first: bool = False
    rotary: bool = False
    copies: int = 1
    calls: int = 0  # of joint attentions, since somebody last set it to 0

    @property
    def image_tokens(self) -> int:
        return math.prod(self.grid)

    @property
    def image(self) -> tuple[int, int]:
        first = self.text_tokens if self.text_first else 0
        return first, first + self.image_tokens

    @property
    def text(self) -> tuple[int, int]:
        first = 0 if self.text_first else self.image_tokens
        return first, first + self.text_tokens

    def joined(self, image: Tensor, text: Tensor) -> Tensor:
        """Along the tokens, the last axis but one."""
        return torch.cat((text, image) if self.text_first else (image, text), -2)

    def apart(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Image, and text."""
        text_tokens = tokens.shape[-2] - self.image_tokens
        if self.text_first:
            return tokens[..., text_tokens:, :], tokens[..., :text_tokens, :]
        return tokens[..., : self.image_tokens, :], tokens[..., self.image_tokens :, :]

    def bias(self, like: Tensor, text_tokens: int) -> Tensor | None:
        """What is added to the scores of the text keys, [token]."""
        if self.copies == 1:
            return None
        last = torch.arange(text_tokens, device=like.device) == text_tokens - 1
        return last.to(like.dtype) * math.log(self.copies)


@dataclass
class Stream:
    """What image tokens, or text tokens, bring to an attention: [row, head, token, width]."""

    queries: Tensor
    keys: Tensor
    values: Tensor


def install(transformer: Any, layout: Layout) -> Taps:
    """Let the taps see the transformer's activations."""
    found = list(_find_sites(transformer, layout))
    taps = Taps(tuple(site for sites, _ in found for site in sites.values()))
    for sites, module in found:
        if "block" in sites:
            hook = BlockHook(sites["block"], taps, layout)
            module.register_forward_hook(hook, with_kwargs=True)
        else:
            module.set_processor(JointAttention(sites["self"], sites.get("cross"), taps, layout))
    return taps


def joint_attentions(transformer: Any) -> int:
    """How many attentions over image and text tokens a forward pass runs."""
    return sum(1 for _ in _blocks(transformer))


def _find_sites(transformer: Any, layout: Layout) -> Iterator[tuple[Mapping[str, Site], Any]]:
    """Every attention's sites, and every block's, in the order they run."""
    numbers: dict[Kind, int] = {"res": 0, "self": 0, "cross": 0}
    rotated = _ROTATED if layout.rotary else frozenset[What]()

    def site(name: str, kind: Kind, passes: frozenset[What]) -> Site:
        numbers[kind] += 1
        tokens = (layout.image, None if kind == "res" else layout.text)
        return Site(name, kind, layout.patch, numbers[kind] - 1, layout.grid, passes, *tokens)

    for place, block in _blocks(transformer):
        cross = _CROSS | (rotated - {"rotated_queries"})
        both = {
            "self": site(f"{place}.self", "self", _SELF | rotated),
            "cross": site(f"{place}.cross", "cross", cross),
        }
        yield both, _attention_of(block, "attn")
        if getattr(block, "attn2", None) is not None:
            yield {"self": site(f"{place}.dual.self", "self", _SELF)}, block.attn2
        yield {"block": site(f"{place}.block", "res", _BLOCK)}, block


def _blocks(transformer: Any) -> Iterator[tuple[str, Any]]:
    for number, block in enumerate(transformer.transformer_blocks):
        yield f"joint.{number}", block
    for number, block in enumerate(getattr(transformer, "single_transformer_blocks", ())):
        yield f"single.{number}", block


def _attention_of(block: Any, name: str) -> Any:
    attention = getattr(block, name, None)
    if not hasattr(attention, "set_processor"):
        raise BackboneError(
            f"{type(block).__name__} of this version of diffusers has no attention {name!r} that "
            "takes a processor; zerocon knows the one of diffusers 0.36 to 0.42"
        )
    return attention


class JointAttention:
    """What diffusers' processors for SD3 and FLUX do, with taps.

    `cross` is none for an attention over the image tokens alone.
    """

    def __init__(self, own: Site, cross: Site | None, taps: Taps, layout: Layout) -> None:
        self.own, self.cross, self.taps, self.layout = own, cross, taps, layout

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        if attention_mask is not None:
            raise NotImplementedError("attention masks: no backbone here uses them")
        if self.cross is None:
            image = self._image_stream(attn, hidden_states)
            return self._tapped("output", _out(attn, self._alone(image)))
        self.layout.calls += 1
        if encoder_hidden_states is None:  # one stream holds both
            return self._one_stream(attn, hidden_states, image_rotary_emb)
        text_states = self._tapped_text("text", encoder_hidden_states)
        text = self._text_stream(
            *(_heads(attn, made(text_states)) for made in _added(attn)),
            norms=(attn.norm_added_q, attn.norm_added_k),
        )
        image = self._image_stream(attn, hidden_states)
        image_out, text_out = self._together(image, text, image_rotary_emb)
        if not getattr(attn, "context_pre_only", False):
            text_out = attn.to_add_out(text_out)
        return self._tapped("output", _out(attn, image_out)), text_out

    def _one_stream(
        self, attn: Any, states: Tensor, rotary: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """A block that treats image and text tokens alike; it projects the output itself."""
        image_states, text_states = self.layout.apart(states)
        text_states = self._tapped_text("text", text_states)
        image = self._image_stream(attn, image_states)
        made = (attn.to_q, attn.to_k, attn.to_v)
        text = self._text_stream(
            *(_heads(attn, project(text_states)) for project in made),
            norms=(attn.norm_q, attn.norm_k),
        )
        image_out, text_out = self._together(image, text, rotary)
        return self.layout.joined(self._tapped("output", image_out), text_out)

    def _image_stream(self, attn: Any, states: Tensor) -> Stream:
        queries = _normed(attn.norm_q, _heads(attn, attn.to_q(states)))
        keys = _normed(attn.norm_k, _heads(attn, attn.to_k(states)))
        queries = self._tapped("queries", queries)
        if self.cross is not None:
            queries = self._tapped_text("queries", queries)
        values = _heads(attn, attn.to_v(states))
        return Stream(queries, self._tapped("keys", keys), self._tapped("values", values))

    def _text_stream(
        self, queries: Tensor, keys: Tensor, values: Tensor, *, norms: tuple[Any, Any]
    ) -> Stream:
        return Stream(
            _normed(norms[0], queries),
            self._tapped_text("keys", _normed(norms[1], keys)),
            self._tapped_text("values", values),
        )

    def _together(
        self, image: Stream, text: Stream, rotary: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """The attention's results for image and text tokens, [row, token, width]."""
        if rotary is not None:
            self._rotate(image, text, rotary)
        keys = self.layout.joined(image.keys, text.keys)
        bias = self._bias(image, text)
        attended = F.scaled_dot_product_attention(
            self.layout.joined(image.queries, text.queries),
            keys,
            self.layout.joined(image.values, text.values),
            attn_mask=bias,
        )
        image_out, text_out = self.layout.apart(attended)
        image_out = self._with_probs(image_out, image, text, keys, bias)
        return _flat(image_out), _flat(text_out)

    def _rotate(self, image: Stream, text: Stream, rotary: tuple[Tensor, Tensor]) -> None:
        (image_cos, text_cos), (image_sin, text_sin) = (self.layout.apart(r) for r in rotary)
        image.queries = self._tapped(
            "rotated_queries", rotated(image.queries, image_cos, image_sin)
        )
        image.keys = self._tapped("rotated_keys", rotated(image.keys, image_cos, image_sin))
        text.queries = rotated(text.queries, text_cos, text_sin)
        text.keys = self._tapped_text("rotated_keys", rotated(text.keys, text_cos, text_sin))

    def _bias(self, image: Stream, text: Stream) -> Tensor | None:
        """What is added to the scores of all keys."""
        bias = self.layout.bias(text.keys, text.keys.shape[-2])
        if bias is None:
            return None
        none = bias.new_zeros(image.keys.shape[-2], 1)
        return self.layout.joined(none, bias[:, None])[:, 0][None, None, None]

    def _with_probs(
        self, out: Tensor, image: Stream, text: Stream, keys: Tensor, bias: Tensor | None
    ) -> Tensor:
        """The image tokens' result after the taps on the probabilities."""
        assert self.cross is not None
        kinds = self._kinds(image, text)
        for site in (self.cross, self.own):
            rows = self.taps.wanted_rows(site, "probs", len(out))
            if rows is None:
                continue
            is_text = site is self.cross
            stream, channel = (text, 1) if is_text else (image, 0)
            shares = _shares(image.queries[rows], keys[rows], kinds, bias)
            extra = self.layout.bias(text.keys, text.keys.shape[-2]) if is_text else None
            probs = _softmax(image.queries[rows], stream.keys[rows], extra)
            probs = shares[..., channel : channel + 1] * probs
            out = self._replaced(out, site, probs, stream.values, rows)
        return out

    def _kinds(self, image: Stream, text: Stream) -> Tensor:
        """Values that tell image keys (channel 0) from text keys (channel 1), [token, width]."""
        like = at_least_single(image.values)
        width = like.shape[-1]
        kinds = [like.new_zeros(s.keys.shape[-2], width) for s in (image, text)]
        for channel, kind in enumerate(kinds):
            kind[:, channel] = 1.0
        return self.layout.joined(*kinds)

    def _replaced(
        self, out: Tensor, site: Site, probs: Tensor, values: Tensor, rows: slice
    ) -> Tensor:
        changed = self.taps.through(site, "probs", probs, rows)
        if changed is probs:
            return out
        extra = ((changed - probs) @ values[rows].to(probs.dtype)).to(out.dtype)
        return torch.cat([out[: rows.start], out[rows] + extra, out[rows.stop :]])

    def _alone(self, image: Stream) -> Tensor:
        """The attention of image tokens to each other only."""
        attended = F.scaled_dot_product_attention(image.queries, image.keys, image.values)
        rows = self.taps.wanted_rows(self.own, "probs", len(attended))
        if rows is not None:
            probs = _softmax(image.queries[rows], image.keys[rows], None)
            attended = self._replaced(attended, self.own, probs, image.values, rows)
        return _flat(attended)

    def _tapped(self, what: What, activation: Tensor) -> Tensor:
        return self.taps.through(self.own, what, activation)

    def _tapped_text(self, what: What, activation: Tensor) -> Tensor:
        assert self.cross is not None
        return self.taps.through(self.cross, what, activation)


def _shares(queries: Tensor, keys: Tensor, kinds: Tensor, bias: Tensor | None) -> Tensor:
    """How much of each query's attention goes to image keys and to text keys.

    [row, head, position, 2], at least in single precision.
    """
    q, k = at_least_single(queries), at_least_single(keys)
    values = kinds.expand(*k.shape[:2], *kinds.shape)
    mask = None if bias is None else bias.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, values, attn_mask=mask)[..., :2]


def _softmax(queries: Tensor, keys: Tensor, bias: Tensor | None) -> Tensor:
    """Over the given keys only, [row, head, position, token], at least in single precision."""
    scores = at_least_single(queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5)
    return torch.softmax(scores if bias is None else scores + bias, dim=-1)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair of neighbouring channels, turned by its position's angle."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((-second, first), -1).flatten(-2)
    return (at_least_single(x) * cos + at_least_single(turned) * sin).to(x.dtype)


def _heads(attn: Any, projected: Tensor) -> Tensor:
    """[row, position, width] to [row, head, position, width of a head]."""
    return projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def _flat(by_head: Tensor) -> Tensor:
    return by_head.transpose(1, 2).flatten(2)


def _normed(norm: Any, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def _added(attn: Any) -> tuple[Callable[[Tensor], Tensor], ...]:
    """The text tokens' own projections."""
    return attn.add_q_proj, attn.add_k_proj, attn.add_v_proj


def _out(attn: Any, attended: Tensor) -> Tensor:
    projected: Tensor = attn.to_out[0](attended)
    return projected


class BlockHook:
    """Shows what a block adds to its image tokens, and the image tokens as they leave it."""

    def __init__(self, site: Site, taps: Taps, layout: Layout) -> None:
        self.site, self.taps, self.layout = site, taps, layout

    def __call__(self, _module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        text, image = output
        if self.taps.wanted(self.site, "features"):
            before = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            image = self._with_features(before, image)
        image = self.taps.through(self.site, "output", image)
        if self.taps.wanted(self.site, "hidden"):
            image = self._with_hidden(image)
        return text, image

    def _with_features(self, before: Tensor, after: Tensor) -> Tensor:
        added = self._on_grid(after - before)
        changed = self.taps.through(self.site, "features", added)
        return after if changed is added else before + _off_grid(changed)

    def _with_hidden(self, image: Tensor) -> Tensor:
        hidden = self._on_grid(image)
        changed = self.taps.through(self.site, "hidden", hidden)
        return image if changed is hidden else _off_grid(changed)

    def _on_grid(self, tokens: Tensor) -> Tensor:
        """[row, token, channel] to [row, channel, y, x]."""
        return tokens.transpose(1, 2).unflatten(2, self.layout.grid)


def _off_grid(grid: Tensor) -> Tensor:
    return grid.flatten(2).transpose(1, 2)
