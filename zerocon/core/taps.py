"""Sites of a network, and reading (`record`) or replacing (`replace`) their activations.

A backbone owns one `Taps` and passes it all requested activations. A tap is active within a `with`
block; outside of one, nothing is read, changed or stored. If a tap's site has no activation during
a forward pass, that is an error (`SilentSiteError`).

A site's name gives its location. In a U-Net, `up.1.2.self` is the self-attention of layer 2 in
decoder block 1, `down.0.1.cross` a cross-attention, `mid.0.1.res` a residual block; in models
with several transformer blocks a layer, the later ones are `up.1.2.d1.self`. `down.0.1.block` is
the layer as a whole, `in.0.0.block` the first convolution. In a transformer
with joint attention, `joint.3.self` is the part of block 3's attention from image to
image tokens, `joint.3.cross` the part from image to text tokens, `joint.3.block` the block as a
whole; a second attention over image tokens only is `joint.3.dual.self`, and blocks with one
stream are `single.3.…`. Sites are chosen by patterns, separated by commas:

    up.*.self            every decoder self-attention
    cross@1/4            cross-attentions at a quarter of the latent's height and width
    self#10..15          by number among all sites of their kind, in execution order
    up.*.self,!up.0.*    a `!` excludes sites from the preceding choice
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from zerocon.core.checks import ConfigError

Kind = Literal["self", "cross", "res", "block"]
# Activations of a site. Attention: [row, head, position, width] and, for `probs`,
# [row, head, position, token]; `output` is after the output projection, [row, position, width].
# Rotated queries and keys include position embeddings, `queries` and `keys` do not.
# `text`: the text tokens before an attention, [row, token, width]; normalised in a transformer,
# as the text encoder returns them in a U-Net.
# Blocks: `features` is what the block adds to its input, [row, channel, y, x] (of a U-Net's
# residual block, after the second convolution); `hidden` is the hidden state of the image as it
# leaves the block, on the same grid.
What = Literal[  # in the order in which a network makes them
    "text",
    "queries",
    "keys",
    "rotated_queries",
    "rotated_keys",
    "values",
    "probs",
    "output",
    "features",
    "hidden",
]

_ATTENTION: frozenset[What] = frozenset({"queries", "keys", "values", "probs", "output"})
_USUAL: Mapping[Kind, frozenset[What]] = {
    "self": _ATTENTION,
    "cross": _ATTENTION | frozenset[What]({"text"}),
    "res": frozenset({"features"}),
    "block": frozenset({"hidden"}),
}


@dataclass(frozen=True)
class Site:
    """One place in a network."""

    name: str
    kind: Kind
    scale: int  # its positions lie on a grid of 1/scale of the latent's side
    number: int  # among the sites of its kind, in execution order
    grid: tuple[int, int]  # height and width of its positions
    passes: frozenset[What] | None = None  # None: as at every U-Net's site of its kind
    # Of joint attention: the first and the last but one of its tokens that are image, and text.
    image: tuple[int, int] | None = None
    text: tuple[int, int] | None = None

    def has(self, what: What) -> bool:
        return what in (_USUAL[self.kind] if self.passes is None else self.passes)


class SitesError(ConfigError):
    """The pattern matches nothing or is invalid."""


class SilentSiteError(Exception):
    """A tapped site had no activation, so the tap would have had no effect."""


_PATTERN = re.compile(
    r"(?P<glob>[\w.*?\[\]-]+)(@1/(?P<scale>\d+))?(#(?P<first>\d+)(\.\.(?P<last>\d+))?)?"
)


@dataclass(frozen=True)
class Pattern:
    """One part of a pattern."""

    glob: str
    scale: int | None
    numbers: range | None
    without: bool

    @classmethod
    def read(cls, text: str) -> Pattern:
        without, text = text.startswith("!"), text.removeprefix("!")
        found = _PATTERN.fullmatch(text)
        if found is None:
            raise SitesError(
                f"{text!r} chooses no sites; write for example up.*.self, cross@1/4 or self#10..15"
            )
        scale, first, last = found["scale"], found["first"], found["last"]
        numbers = range(int(first), int(last or first) + 1) if first else None
        return cls(found["glob"], int(scale) if scale else None, numbers, without)

    def matches(self, site: Site) -> bool:
        return (
            (fnmatchcase(site.name, self.glob) or site.kind == self.glob)
            and self.scale in (None, site.scale)
            and (self.numbers is None or site.number in self.numbers)
        )


def read_patterns(text: str) -> list[Pattern]:
    """The parts of a pattern; SitesError if one is invalid."""
    return [Pattern.read(part.strip()) for part in text.split(",")]


def choose(sites: Sequence[Site], pattern: str, what: What) -> list[Site]:
    """The sites that match the pattern and have `what`, in execution order."""
    if what not in get_args(What):
        raise SitesError(f"{what!r} passes no site; there are: {', '.join(get_args(What))}")
    able = [site for site in sites if site.has(what)]
    parts = read_patterns(pattern)
    chosen = [site for site in able if _is_chosen(site, parts)]
    if not chosen:
        names = ", ".join(f"{s.name} (1/{s.scale})" for s in able)
        raise SitesError(f"no site with {what} matches {pattern!r}; the sites are: {names}")
    return chosen


def _is_chosen(site: Site, parts: Sequence[Pattern]) -> bool:
    chosen = False
    for part in parts:
        if part.matches(site):
            chosen = not part.without
    return chosen


Change = Callable[[Site, dict[str, Tensor]], Mapping[str, Tensor]]
Roles = Collection[str] | None  # of the rows of a pass; None: all
Reader = Callable[[Site, Tensor], Tensor]  # returns the activation to use


@dataclass(frozen=True, eq=False)
class _Tap:
    names: frozenset[str]
    what: What
    through: Reader
    roles: frozenset[str] | None = None  # whose rows it is about; None: all rows
    stop: bool = False
    reads: bool = False  # it leaves the activation as it is
    fired: set[str] = field(default_factory=set[str])  # sites reached in this pass


class PassEnded(Exception):  # noqa: N818 - nothing is wrong
    """All recordings with `stop` are complete, so the forward pass ends here."""


class Collector(Protocol):
    """Stands in for the active taps while a compiled pass runs, which no Python code may follow."""

    def wants(self, site: Site, what: What) -> bool: ...

    def wanted_rows(self, site: Site, what: What) -> slice: ...

    def keep(self, site: Site, what: What, activation: Tensor) -> None: ...


@dataclass(eq=False)
class Taps:
    """A backbone's active taps, which its attention and residual blocks consult."""

    sites: tuple[Site, ...]
    stack: list[_Tap] = field(default_factory=list[_Tap])
    collector: Collector | None = None  # in a compiled pass
    rows: dict[str, slice] = field(default_factory=dict[str, slice])  # role -> rows of the batch
    first: int = 0  # the row of the batch that the present activation begins with

    def wanted(self, site: Site, what: What) -> bool:
        if self.collector is not None:
            return self.collector.wants(site, what)
        return any(tap.what == what and site.name in tap.names for tap in self.stack)

    def wanted_rows(self, site: Site, what: What, count: int) -> slice | None:
        """Of a pass of `count` rows, from the first to the last row that a tap is about.

        None if there is none. It spares a backbone activations that no tap sees.
        """
        if self.collector is not None:
            wanted = self.collector.wants(site, what)
            return self.collector.wanted_rows(site, what) if wanted else None
        asked = [tap for tap in self.stack if tap.what == what and site.name in tap.names]
        found = [rows for tap in asked for rows in self._rows_of(tap, count)]
        if not found:
            return None
        return slice(min(rows.start for rows in found), max(rows.stop for rows in found))

    def _rows_of(self, tap: _Tap, count: int) -> list[slice]:
        if tap.roles is None or not self.rows:
            return [slice(0, count)]
        return [rows for role, rows in self.rows.items() if role in tap.roles]

    @property
    def only_read(self) -> bool:
        """Whether no active tap replaces an activation."""
        return all(tap.reads for tap in self.stack)

    @property
    def all_stop(self) -> bool:
        """Whether the next forward pass ends at its last recording, without a result."""
        return bool(self.stack) and all(tap.stop for tap in self.stack)

    def through(
        self, site: Site, what: What, activation: Tensor, rows: slice | None = None
    ) -> Tensor:
        """Apply the active taps to the activation, the outermost first.

        `rows`: those of the pass that the activation has, from `wanted_rows`; None: all.
        """
        if self.collector is not None:
            self.collector.keep(site, what, activation)
            return activation
        self.first = 0 if rows is None else rows.start or 0
        stops = False
        for tap in self.stack:
            if tap.what == what and site.name in tap.names:
                activation = tap.through(site, activation)
                tap.fired.add(site.name)
                stops = stops or tap.stop
        if stops and all(tap.names <= tap.fired for tap in self.stack if tap.stop):
            self._forget()
            raise PassEnded
        return activation

    def _forget(self) -> None:
        for tap in self.stack:
            tap.fired.clear()

    @contextmanager
    def forward_pass(self) -> Generator[None]:
        """Wraps every forward pass; at its end all taps must have had their sites' activations."""
        self._forget()
        yield
        for tap in self.stack:
            self._check(tap)

    def _check(self, tap: _Tap) -> None:
        silent = [site.name for site in self.sites if site.name in tap.names - tap.fired]
        if silent:
            raise SilentSiteError(
                f"no {tap.what} passed {', '.join(silent)} during a forward pass, so nothing was "
                "recorded or replaced there. The network did not run zerocon's attention or "
                "hooks: another attention processor was set, or this version of diffusers calls "
                "them in another way"
            )

    def by_role(self, activation: Tensor) -> dict[str, Tensor]:
        if not self.rows:
            return {"all": activation}
        last = self.first + len(activation)
        return {
            role: activation[rows.start - self.first : rows.stop - self.first]
            for role, rows in self.rows.items()
            if self.first <= rows.start and rows.stop <= last
        }

    @contextmanager
    def labelled(self, roles: Sequence[str], count: int) -> Generator[None]:
        """Name the rows of the next forward passes: `count` rows per role, in order."""
        before = self.rows
        self.rows = {r: slice(i * count, (i + 1) * count) for i, r in enumerate(roles)}
        try:
            yield
        finally:
            self.rows = before

    @contextmanager
    def active(self, tap: _Tap) -> Generator[None]:
        self.stack.append(tap)
        try:
            yield
        finally:
            self.stack.remove(tap)


class Seen:
    """A recording's activations of the last forward pass, by site and role."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self.sites = list(sites)
        self._activations: dict[str, dict[str, Tensor]] = {}

    def __getitem__(self, name: str) -> dict[str, Tensor]:
        return self._activations[name]

    def __len__(self) -> int:
        return len(self._activations)

    def keep(self, site: Site, activations: dict[str, Tensor]) -> None:
        self._activations[site.name] = activations

    def of(self, role: str) -> list[Tensor]:
        """One role's rows, a tensor per site in execution order."""
        return [self._activations[site.name][role] for site in self.sites]


@contextmanager
def record(
    taps: Taps, sites: str, what: What, *, stop: bool = False, roles: Roles = None
) -> Generator[Seen]:
    """Record the chosen sites' activations, replaced in each forward pass, with gradients.

    `roles`: whose rows are read; only for these are probabilities made.

    With `stop`, the forward pass ends (by `PassEnded`, which `run_for_taps` catches) once this and
    all other recordings with `stop` are complete; later layers are not computed.
    """
    chosen = choose(taps.sites, sites, what)
    seen = Seen(chosen)

    def through(site: Site, activation: Tensor) -> Tensor:
        seen.keep(site, taps.by_role(activation))
        return activation

    with taps.active(_Tap(_names(chosen), what, through, _roles(roles), stop, reads=True)):
        yield seen


@contextmanager
def replace(
    taps: Taps, sites: str, what: What, change: Change, *, roles: Roles = None
) -> Generator[None]:
    """Replace the rows of each role in the result of `change(site, {role: rows})`.

    `roles`: whose rows `change` reads or gives; only for these are probabilities made.
    """
    chosen = choose(taps.sites, sites, what)

    def through(site: Site, activation: Tensor) -> Tensor:
        before = taps.by_role(activation)
        after = change(site, before)
        unknown = set(after) - set(before)
        if unknown:
            raise KeyError(f"no rows are called {sorted(unknown)}; there are {sorted(before)}")
        return torch.cat([after.get(role, rows) for role, rows in before.items()])

    with taps.active(_Tap(_names(chosen), what, through, _roles(roles))):
        yield


def _names(sites: Sequence[Site]) -> frozenset[str]:
    return frozenset(site.name for site in sites)


def _roles(roles: Roles) -> frozenset[str] | None:
    return None if roles is None else frozenset(roles)


def shared(source: str, *takers: str) -> Change:
    """A change that copies the source's activations to the takers."""
    return lambda _site, rows: dict.fromkeys(takers, rows[source])
