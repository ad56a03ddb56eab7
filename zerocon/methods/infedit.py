"""InfEdit (Xu et al. 2024): virtual inversion, with unified attention control."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zerocon.backbones.base import Backbone
from zerocon.core.checks import ConfigError, in_range, one_of
from zerocon.core.conditions import Condition, Conditions, Draws, Words
from zerocon.core.forward import Rows, needs_negative, predict, told
from zerocon.core.levels import Guess, Level, Path, guided
from zerocon.core.prompts import Alignment, aligned, bare, places_of, refined
from zerocon.core.sampling import Branches, Evaluate, Guesses, sample
from zerocon.core.taps import Change, Site, Taps, choose, read_patterns, replace
from zerocon.core.word_maps import marks
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used

# Whose self-attention a row takes. Early, the layout is the source's, and each takes its own
# values; later, the mutual branch has the edit's layout. It shows the source's values always.
EARLY = {
    "target": "source",
    "mutual": "source",
    "negative": "source_negative",
    "mutual_negative": "source_negative",
}
THE_SOURCES = {"mutual": "source", "mutual_negative": "source_negative"}
LOOKED_AT = "source", "target", "mutual"  # whose cross-attention maps count
THE_EDITS = {"mutual": "target", "mutual_negative": "negative"}


@dataclass(frozen=True)
class InfEdit:
    """Consistency sampling, its error measured on the source and taken off the edit.

    At each step source and edit are noised anew, with the same noise; the source's clean latent
    is known, so what its guess is wrong by is subtracted from the edit's. `cross` and
    `self_attention` are the first shares of the steps with the source's maps. A third branch,
    `mutual`, shows the source in the edit's layout: it stands where the edit's blend words get
    little attention (`blend_threshold`, and at least `blend_noise` over the level's signal); the
    source stands where the words `blend_spares` get much (`spare_threshold`).

    `start`: from noise, or from the noised picture; only then may `strength` be below 1.
    `swapped_pairs`: see `paired`.
    """

    needs_inversion: ClassVar[bool] = False
    uses_mask: ClassVar[bool] = False
    uses: ClassVar[frozenset[Used]] = frozenset({"target", "target_words"})

    steps: int = 12
    guidance: float = 2.3
    source_guidance: float = 1.0
    cross: float = 0.7
    self_attention: float = 0.7
    start: Literal["noise", "picture"] = "noise"
    strength: float = 1.0
    local_blend: bool = True
    blend_spares: list[str] | None = None
    blend_sites: str = "down.*.cross@1/4,up.*.cross@1/4"
    blend_threshold: float = 0.55
    blend_noise: float = 0.15
    spare_threshold: float = 0.6
    swapped_pairs: bool = False

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        in_range("method.source_guidance", self.source_guidance, 0, 100)
        one_of("method.start", self.start, ("noise", "picture"))
        for name in ("cross", "self_attention", "strength", "blend_threshold", "spare_threshold"):
            in_range(f"method.{name}", getattr(self, name), 0, 1)
        in_range("method.blend_noise", self.blend_noise, 0)
        read_patterns(self.blend_sites)
        if self.strength < 1 and self.start == "noise":
            raise ConfigError(
                f"method.strength is {self.strength}, but with method.start=noise sampling starts "
                "from noise alone; set method.start=picture, or leave method.strength at 1"
            )

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        count = max(1, int(self.strength * self.steps))
        path, clean = trajectory.path.tail(count), trajectory.clean
        control = self._control(backbone, conditions, skipped=self.steps - count)

        def evaluate(step: int, z: Branches, level: Level) -> Guesses:
            with control.active(step):
                rows = self._rows(backbone, z, conditions, early=control.early(step))
                found = predict(backbone, level, rows)
            return self._guided(found)

        def blended(step: int, z: Branches) -> Branches:
            if step in (0, count - 1):  # the last step's guess is the result, as published
                return z
            mutual_last = step == count - 2
            return z | {"edit": control.blended(z, path.levels[step], mutual_last=mutual_last)}

        noise = draws.normal_like(clean, "infedit")
        start = noise if self.start == "noise" else path.levels[0].mix(clean, noise)
        branches = ("source", "edit", "mutual") if control.blends else ("source", "edit")
        solver = VirtualInversion(path, clean, draws)
        z = sample(solver, count, dict.fromkeys(branches, start), evaluate, after=blended)
        return z["edit"]

    def _control(self, backbone: Backbone, conditions: Conditions, skipped: int) -> Control:
        if len(conditions.words) != len(conditions.target):
            raise ValueError("InfEdit aligns the prompts' tokens: Conditions.words must have them")
        spared = [bare(backbone, word) for word in self.blend_spares or ()]
        every = [
            paired(words, source, target, spared, swapped=self.swapped_pairs)
            for words, source, target in zip(
                conditions.words, conditions.source.tokens, conditions.target.tokens, strict=True
            )
        ]
        tokens = conditions.target.tokens
        return Control(self, backbone.taps, every, tokens.device, tokens.shape[1], skipped)

    def _rows(
        self, backbone: Backbone, z: Branches, conditions: Conditions, *, early: bool
    ) -> Rows:
        """What is neither guided nor looked at by another row is left out."""
        source = told(backbone, conditions.source, self.source_guidance)
        rows: dict[str, tuple[Tensor, Condition]] = {
            "source": (z["source"], source),
            "target": (z["edit"], told(backbone, conditions.target, self.guidance)),
        }
        if "mutual" in z:
            rows["mutual"] = (z["mutual"], source)
        scales = self.guidance, self.source_guidance
        if not any(needs_negative(backbone, scale) for scale in scales):
            return rows
        rows["negative"] = (z["edit"], conditions.negative)
        if early or self.source_guidance != 1.0:
            rows["source_negative"] = (z["source"], conditions.negative)
        if "mutual" in z and self.source_guidance != 1.0:
            rows["mutual_negative"] = (z["mutual"], conditions.negative)
        return rows

    def _guided(self, found: Guesses) -> Guesses:
        def branch(text: str, negative: str, scale: float) -> Guess:
            if scale == 1.0 or negative not in found:
                return found[text]
            return guided(found[negative], found[text], scale)

        guesses = {
            "source": branch("source", "source_negative", self.source_guidance),
            "edit": branch("target", "negative", self.guidance),
        }
        if "mutual" in found:
            guesses["mutual"] = branch("mutual", "mutual_negative", self.source_guidance)
        return guesses


@dataclass(frozen=True, eq=False)
class VirtualInversion:
    """Consistency sampling: to what is clean of each branch, and back to noise of its own.

    The source's clean latent is known; what its guess is wrong by is taken off every guess. The
    last step's result is clean.
    """

    path: Path
    clean: Tensor
    draws: Draws

    def step(self, i: int, z: Branches, evaluate: Evaluate) -> Branches:
        here, there = self.path.steps[i]
        found = evaluate(z, here)
        error = found["source"].clean - self.clean
        clean = {name: guess.clean - error for name, guess in found.items()}
        clean["source"] = self.clean
        if i == len(self.path) - 1:
            return clean
        noise = self.draws.normal_like(self.clean, f"infedit/{i}")
        return {name: there.mix(latent, noise) for name, latent in clean.items()}


@dataclass(frozen=True)
class Pairing:
    """A case's prompts, token by token, and the places of its blend words."""

    alignment: Alignment
    edited: frozenset[int]  # where the edit's blend words stand in the target prompt
    spared: frozenset[int]  # and words of both prompts off which the edit stays

    @property
    def both(self) -> list[int]:
        return sorted(self.edited & self.spared)

    @property
    def only_spared(self) -> list[int]:
        return sorted(self.spared - self.edited)


def paired(
    words: Words, source: Tensor, target: Tensor, spared: Sequence[Sequence[int]], *, swapped: bool
) -> Pairing:
    """Prompt-to-Prompt's alignment, and a partner for new words that stand in for dropped ones.

    Where new target tokens and dropped source tokens stand between the same neighbours, the two
    whose embeddings (`source` and `target`, [token, width]) have the largest cosine become a
    pair. `swapped`: as the published code, which looks each place up in the other prompt.
    """
    origins = aligned(words.source, words.target)[: words.length]
    found = refined(words.source, words.target, words.length)
    mapper, own = found.mapper.clone(), found.own.clone()
    edited, phrase = set(words.target_blend), {words.target[p] for p in words.target_blend}
    before, after = (source, target) if swapped else (target, source)
    for new, dropped in _gaps(origins):
        pairs = [(i, j) for i in new for j in dropped]
        if not pairs:
            continue
        i, j = max(pairs, key=lambda ij: float(F.cosine_similarity(before[ij[0]], after[ij[1]], 0)))
        mapper[j, i], own[i] = 1.0, 0.0
        if words.source[j] in phrase:
            edited.add(i)
    places = {place for word in spared for place in places_of(word, words.target)}
    kept = frozenset(place for place in places if origins[place] is not None)
    return Pairing(Alignment(mapper, own), frozenset(edited), kept)


def _gaps(origins: Sequence[int | None]) -> Generator[tuple[range, range]]:
    """Each run of new target tokens, with the source tokens dropped between its neighbours."""
    start: int | None = None
    for place, origin in enumerate(origins):
        if origin is None:
            start = place if start is None else start
        elif start is not None:
            previous = origins[start - 1] if start else -1
            yield range(start, place), range((-1 if previous is None else previous) + 1, origin)
            start = None


class Control:
    """Unified attention control of a batch, and blending by the maps that it sees."""

    def __init__(
        self,
        method: InfEdit,
        taps: Taps,
        pairings: Sequence[Pairing],
        device: torch.device,
        length: int,
        skipped: int,
    ) -> None:
        self.method, self.taps, self.skipped = method, taps, skipped
        self.alignment = Alignment.stacked([p.alignment.widened(length) for p in pairings], device)
        marked = {
            "edited": marks([sorted(p.edited) for p in pairings]),
            "spared": marks([p.only_spared for p in pairings]),
            "both": marks([p.both for p in pairings]),
        }
        named = any(bool(words.any()) for words in marked.values())
        self.marks = {name: words.to(device) for name, words in marked.items()}
        self.blends = method.local_blend and named
        blend_sites = choose(taps.sites, method.blend_sites, "probs")
        self.blend_sites, self.grid = {s.name for s in blend_sites}, blend_sites[0].grid
        # Of the pass that runs, a tensor a site; and the means over sites and heads, summed over
        # the steps, [case, position, token].
        self.seen: dict[str, list[Tensor]] = {"source": [], "mutual": []}
        self.maps: dict[str, Tensor] = {}

    def _share(self, step: int) -> float:
        """Of the steps, counted to the end of this one."""
        return (self.skipped + step + 1) / self.method.steps

    def early(self, step: int) -> bool:
        """Whether the edit's self-attention is the source's at this step."""
        return self._share(step) < self.method.self_attention

    @contextmanager
    def active(self, step: int) -> Generator[None]:
        """The step's taps; its maps are kept where blending needs them."""
        layout = (EARLY, EARLY) if self.early(step) else (THE_EDITS, THE_SOURCES)
        with ExitStack() as open_taps:
            if self.early(step) or self.blends:
                for what, takes in zip(("queries", "keys"), layout, strict=True):
                    open_taps.enter_context(replace(self.taps, "self", what, _taking(takes)))
            if self.blends:
                taken = _taking(THE_SOURCES)
                open_taps.enter_context(replace(self.taps, "self", "values", taken))
            if self._share(step) <= self.method.cross:
                open_taps.enter_context(
                    replace(self.taps, "cross", "probs", self._edited, roles=LOOKED_AT)
                )
            elif self.blends:
                sites = self.method.blend_sites
                open_taps.enter_context(
                    replace(self.taps, sites, "probs", self._looked_at, roles=LOOKED_AT)
                )
            yield
        self._sum_up()

    def _edited(self, site: Site, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._looked_at(site, rows)
        return {"target": self.alignment.applied(rows["source"], rows["target"])}

    def _looked_at(self, site: Site, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Both maps as if they were the edit's, token by token; nothing is replaced."""
        if self.blends and site.name in self.blend_sites:
            for role, seen in self.seen.items():
                seen.append(self.alignment.applied(rows[role], rows["target"]))
        return {}

    def _sum_up(self) -> None:
        for role, seen in self.seen.items():
            if seen:
                found = torch.cat(seen, dim=1).mean(1)
                self.maps[role] = self.maps[role] + found if role in self.maps else found
                seen.clear()

    def blended(self, z: Branches, level: Level, *, mutual_last: bool) -> Tensor:
        """The edit after a step from `level`; `mutual_last`: the words of both branches, too."""
        edit, size = z["edit"], z["edit"].shape[-2:]
        if not self.blends:
            return edit
        method = self.method
        noise = method.blend_noise / max(level.signal, 1e-12)
        inside = self._large("mutual", "edited", max(method.blend_threshold, noise), size)
        unnamed = ~self.marks["edited"].any(1)[:, None, None, None]
        edit = torch.where(inside | unnamed, edit, z["mutual"])
        spared = self._large("source", "spared", method.spare_threshold, size)
        edit = torch.where(spared, z["source"], edit)
        if mutual_last:
            kept = self._large("mutual", "both", method.blend_threshold, size)
            edit = torch.where(kept, z["mutual"], edit)
        return edit

    def _large(self, role: str, words: str, threshold: float, size: Sequence[int]) -> Tensor:
        """Where one of the words gets more than this share of the largest attention."""
        maps = self.maps[role]
        columns = self.marks[words][:, None, :].to(maps)
        marked = maps[..., : columns.shape[-1]] * columns
        found = marked.amax(-1).unflatten(1, (1, *self.grid))
        larger = F.interpolate(found, size=tuple(size))
        # A map of zeros has no share (nan), which is not above any threshold.
        return larger / larger.amax((2, 3), keepdim=True) > threshold


def _taking(takes: Mapping[str, str]) -> Change:
    """A change that gives each row what another has, as far as both are there."""
    return lambda _site, rows: {to: rows[of] for to, of in takes.items() if to in rows}
