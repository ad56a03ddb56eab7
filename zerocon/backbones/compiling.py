"""Compiled forward passes: `torch.compile` over a network with its taps.

A compiled graph can't call the Python code of a tap. Its passes return what the active taps record
as further results instead, and the taps get them afterwards, in the order in which the sites run.
A pass that ends at its last recording does not return the network's prediction, so that the
compiler leaves out all layers behind. There is one graph for each set of recorded activations,
with and without a gradient, and it takes any number of rows from two on.

Taps that replace activations run Python code in the middle of the network. Such passes are not
compiled, nor are those of a network that the compiler can't handle; `why_not` says why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from zerocon.core.checks import ConfigError, shown
from zerocon.core.conditions import Condition
from zerocon.core.taps import Site, Taps, What

Network = Callable[[Tensor, Tensor, Condition], Tensor]  # latents, times and texts of the rows
IN_ORDER: tuple[What, ...] = get_args(What)
# Compiling takes minutes, once a run. From how many cases on it pays has not been measured.
AUTO_CASES = 200
GRAPHS = 64  # at most, of one network; Dynamo's own limit is 8

Compile = bool | Literal["auto"]  # `backbone.compile`

log = logging.getLogger(__name__)


def check_compile(said: Compile) -> None:
    if said not in ("auto", True, False):
        raise ConfigError(f"backbone.compile is {shown(said)}; it must be true, false or auto")


def pays(device: torch.device, cases: int) -> bool:
    """Whether `auto` compiles for a run of so many cases."""
    return device.type == "cuda" and cases >= AUTO_CASES


def _address(site: Site, what: What) -> str:
    return f"{site.name}/{what}"


class Collected:
    """What a compiled pass keeps: the activations at certain addresses."""

    def __init__(self, addresses: frozenset[str]) -> None:
        self.addresses = addresses
        self.kept: dict[str, Tensor] = {}

    def wants(self, site: Site, what: What) -> bool:
        return _address(site, what) in self.addresses

    def keep(self, site: Site, what: What, activation: Tensor) -> None:
        address = _address(site, what)
        if address in self.addresses:
            self.kept[address] = activation


class CompiledNetwork:
    """Calls the network, compiled where the active taps allow it."""

    def __init__(self, network: Network, taps: Taps, backend: Any = "inductor") -> None:
        import torch._dynamo  # takes seconds, and only compiled networks need it

        self.network, self.taps = network, taps
        self.why_not: str | None = None  # the last reason for a pass that was not compiled
        self._failed = False
        self._collectors: dict[frozenset[str], Collected] = {}
        compiler: Any = torch._dynamo  # noqa: SLF001 - the compiler has no public names
        compiler.config.recompile_limit = max(compiler.config.recompile_limit, GRAPHS)
        self._errors: type[Exception] = compiler.exc.TorchDynamoException
        self._any_number_of_rows: Callable[[Tensor, int], None] = compiler.maybe_mark_dynamic
        self._run: Any = torch.compile(self._traced, backend=backend, fullgraph=True)

    def __call__(self, z: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """The prediction, after the taps have had their activations."""
        if not self.taps.only_read:
            self._say("taps replace activations in the middle of the network")
        if self._failed or not self.taps.only_read:
            return self.network(z, times, condition)
        asked = self._asked()
        try:
            prediction, kept = self._compiled(asked, z, times, condition)
        except self._errors as error:
            self._failed = True
            said = " ".join(str(error).split())[:200]
            self._say(f"the compiler failed: {said}")
            return self.network(z, times, condition)
        for (site, what), address in asked.items():
            if address in kept:
                self.taps.through(site, what, kept[address])
        return prediction

    def _say(self, reason: str) -> None:
        """Once for each reason that follows another."""
        if reason != self.why_not:
            self.why_not = reason
            log.warning("a forward pass is not compiled: %s", reason)

    def _asked(self) -> dict[tuple[Site, What], str]:
        """What the active taps record, in the order in which the network comes by."""
        return {
            (site, what): _address(site, what)
            for site in (self.taps.sites if self.taps.stack else ())
            for what in IN_ORDER
            if self.taps.wanted(site, what)
        }

    def _compiled(
        self, asked: dict[tuple[Site, What], str], z: Tensor, times: Tensor, condition: Condition
    ) -> tuple[Tensor, dict[str, Tensor]]:
        parts = [condition.tokens, condition.pooled, condition.guidance]
        for tensor in (z, times, *parts):
            if tensor is not None:
                self._any_number_of_rows(tensor, 0)
        addresses = frozenset(asked.values())
        collector = self._collectors.setdefault(addresses, Collected(addresses))
        self.taps.collector = collector
        try:
            prediction, kept = self._run(collector, not self.taps.all_stop, z, times, *parts)
        finally:
            self.taps.collector = None
        # Of a pass that ends at a recording nobody sees the result.
        return (z if prediction is None else prediction), kept

    def _traced(
        self,
        collector: Collected,
        whole: bool,
        z: Tensor,
        times: Tensor,
        tokens: Tensor,
        pooled: Tensor | None,
        guidance: Tensor | None,
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """What is compiled."""
        prediction = self.network(z, times, Condition(tokens, pooled, guidance))
        kept, collector.kept = collector.kept, {}
        return (prediction if whole else None), kept
