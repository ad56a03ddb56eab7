"""Compiled forward passes: `torch.compile` over a network with its taps.

A compiled graph can't call the Python code of a tap. Its passes return what the active taps record
as further results instead, and the taps get them afterwards, in the order in which the sites run.
A pass that ends at its last recording does not return the network's prediction, so that the
compiler leaves out all layers behind. There is one graph for each set of recorded activations,
with and without a gradient, and each number of rows: graphs for any number are slower, and take
longer to compile. Passes of a kind that comes seldom are not compiled, nor are those of fewer rows
than the graph of their kind: they are of a run's last batch, which would be over first. If they
come more often than the graph's did, batches have become smaller, as after running out of memory.

Taps that replace activations run Python code in the middle of the network. Such passes are not
compiled, nor are those of a network that the compiler can't handle; `why_not` says why.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

from zerocon.core.checks import ConfigError, shown
from zerocon.core.conditions import Condition
from zerocon.core.memory import compiled_folder
from zerocon.core.taps import Site, Taps, What

Network = Callable[[Tensor, Tensor, Condition], Tensor]  # latents, times and texts of the rows
IN_ORDER: tuple[What, ...] = get_args(What)
# Compiling takes minutes, once on a machine. With Stable Diffusion 1.5's size on an H100 it pays
# from 680 cases on the first time, and from 100 on when the graphs are in the cache.
AUTO_CASES = 700
GRAPHS = 64  # at most, of one network; Dynamo's own limit is 8
CACHE = "TORCHINDUCTOR_CACHE_DIR"
PATIENCE = 10  # passes of a kind before it is compiled
SELDOM = 0.05  # of all passes: a kind that comes once a batch, as the last step's, costs little

Compile = bool | Literal["auto"]  # `backbone.compile`

# On a processor: two files of C++ for all of a graph, not one for each loop, as each takes the
# compiler seconds to start; and weights in the layout that its products want.
# On a GPU: a convolution of single positions as the matrix product that it is, and channels last
# throughout. By itself the compiler keeps a pass with a gradient in the other layout if some
# convolutions make fewer channels, as a U-Net's do, and then each convolution copies its input.
OPTIONS: Mapping[str, dict[str, Any]] = {
    "cpu": {"cpp_wrapper": True, "cpp_wrapper_build_separate": True, "freezing": True},
    "cuda": {"conv_1x1_as_mm": True, "force_layout_optimization": True},
}

Rows = tuple[int, int]  # the first, and the one behind the last
Asked = tuple[tuple[Site, What, Rows], ...]  # what the taps record, in the order of the network
Kind = tuple[frozenset[str], bool, bool]  # addresses that are recorded; to the end; with a gradient

log = logging.getLogger(__name__)


def check_compile(said: Compile) -> None:
    if said not in ("auto", True, False):
        raise ConfigError(f"backbone.compile is {shown(said)}; it must be true, false or auto")


def pays(device: torch.device, cases: int) -> bool:
    """Whether `auto` compiles for a run of so many cases."""
    return device.type == "cuda" and cases >= AUTO_CASES


def _address(site: Site, what: What) -> str:
    return f"{site.name}/{what}"


def _keep_graphs() -> None:
    """For other runs on this machine, unless the environment says where."""
    if CACHE not in os.environ:
        folder = compiled_folder()
        with suppress(OSError):  # a folder that can't be written
            folder.mkdir(parents=True, exist_ok=True)
            os.utime(folder)  # used now: see `zerocon cache --prune`
            os.environ[CACHE] = str(folder)


def _options(device: torch.device) -> dict[str, Any] | None:
    """Those that this version of PyTorch has."""
    known: Any = import_module("torch._inductor.config")
    options = OPTIONS.get(device.type, {})
    return {name: value for name, value in options.items() if hasattr(known, name)} or None


class Collected:
    """What a compiled pass keeps: the activations at certain addresses, of certain rows."""

    def __init__(self, rows: Mapping[str, Rows]) -> None:
        self.rows = rows  # by the address
        self.kept: dict[str, Tensor] = {}

    def wants(self, site: Site, what: What) -> bool:
        return _address(site, what) in self.rows

    def wanted_rows(self, site: Site, what: What) -> slice:
        return slice(*self.rows[_address(site, what)])

    def keep(self, site: Site, what: What, activation: Tensor) -> None:
        address = _address(site, what)
        if address in self.rows:
            self.kept[address] = activation


@dataclass
class Known:
    """Of passes of one kind: how many there were, and graphs, by the number of rows."""

    passes: Counter[int] = field(default_factory=Counter[int])
    graphs: set[int] = field(default_factory=set[int])


class CompiledNetwork:
    """Calls the network, compiled where the active taps and the number of rows allow it."""

    def __init__(
        self,
        network: Network,
        taps: Taps,
        device: torch.device,
        backend: Any = "inductor",
        patience: int = PATIENCE,
    ) -> None:
        import torch._dynamo  # takes seconds, and only compiled networks need it

        self.network, self.taps, self.patience = network, taps, patience
        self.why_not: str | None = None  # the last reason for a pass that was not compiled
        self._said: set[str] = set()
        self._failed = False
        self._collectors: dict[Asked, Collected] = {}
        self._known: dict[Kind, Known] = {}
        self._passes = 0
        _keep_graphs()
        if device.type == "cuda" and not torch.are_deterministic_algorithms_enabled():
            torch.backends.cudnn.benchmark = True  # its passes come in few sizes
        compiler: Any = torch._dynamo  # noqa: SLF001 - the compiler has no public names
        compiler.config.recompile_limit = max(compiler.config.recompile_limit, GRAPHS)
        self._errors: type[Exception] = compiler.exc.TorchDynamoException
        options = _options(device) if backend == "inductor" else None
        self._run: Any = torch.compile(
            self._traced, backend=backend, fullgraph=True, dynamic=False, options=options
        )

    def __call__(self, z: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """The prediction, after the taps have had their activations."""
        if not self.taps.only_read:
            self._say("taps replace activations in the middle of the network")
        if self._failed or not self.taps.only_read:
            return self.network(z, times, condition)
        asked = self._asked(len(z))
        if not self._takes(asked, len(z)):
            return self.network(z, times, condition)
        try:
            prediction, kept = self._compiled(asked, z, times, condition)
        except self._errors as error:
            self._failed = True
            said = " ".join(str(error).split()).partition(" Set TORCHDYNAMO")[0][:200]
            self._say(f"the compiler failed: {said}")
            return self.network(z, times, condition)
        for site, what, rows in asked:
            address = _address(site, what)
            if address in kept:
                self.taps.through(site, what, kept[address], slice(*rows))
        return prediction

    def _takes(self, asked: Asked, count: int) -> bool:
        """Whether there is a graph for so many rows, or should be."""
        addresses = frozenset(_address(site, what) for site, what, _ in asked)
        kind = addresses, not self.taps.all_stop, torch.is_grad_enabled()
        known = self._known.setdefault(kind, Known())
        self._passes += 1
        known.passes[count] += 1
        if count in known.graphs:
            return True
        if known.passes[count] <= max(self.patience, SELDOM * self._passes):
            return False
        most = max(known.graphs, default=0)
        if count < most and known.passes[count] <= known.passes[most]:
            self._say(f"{count} rows are fewer than its graph's, {most}")
            return False
        known.graphs.add(count)
        return True

    def _say(self, reason: str) -> None:
        """Each reason once."""
        self.why_not = reason
        if reason not in self._said:
            self._said.add(reason)
            log.warning("a forward pass is not compiled: %s", reason)

    def _asked(self, count: int) -> Asked:
        """What the active taps record, in the order in which the network comes by."""
        return tuple(
            (site, what, self._rows_of(site, what, count))
            for site in (self.taps.sites if self.taps.stack else ())
            for what in IN_ORDER
            if self.taps.wanted(site, what)
        )

    def _rows_of(self, site: Site, what: What, count: int) -> Rows:
        """Probabilities are made of the wanted rows only; the rest passes as it is."""
        rows = self.taps.wanted_rows(site, what, count) if what == "probs" else None
        return (0, count) if rows is None else (rows.start, rows.stop)

    def _compiled(
        self, asked: Asked, z: Tensor, times: Tensor, condition: Condition
    ) -> tuple[Tensor, dict[str, Tensor]]:
        parts = [condition.tokens, condition.pooled, condition.guidance]
        rows = {_address(site, what): rows for site, what, rows in asked}
        collector = self._collectors.setdefault(asked, Collected(rows))
        whole = not self.taps.all_stop
        self.taps.collector = collector
        try:
            prediction, kept = self._run(collector, whole, z, times, *parts)
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


class Compiles(ABC):
    """A backbone whose network can be compiled."""

    device: torch.device
    taps: Taps
    compiling: Compile = False
    _compiled: CompiledNetwork | None = None

    @abstractmethod
    def _predicted(self, z: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """The network as it is."""

    @property
    def _network(self) -> Network:
        return self._predicted if self._compiled is None else self._compiled

    def compile(self, backend: Any = "inductor", patience: int = PATIENCE) -> CompiledNetwork:
        """Compile forward passes from now on."""
        made = CompiledNetwork(self._predicted, self.taps, self.device, backend, patience)
        self._compiled = made
        return made

    @contextmanager
    def uncompiled(self) -> Generator[None]:
        """Inside, no pass is compiled: for hooks, and other tools that look at every operation."""
        before, self._compiled = self._compiled, None
        try:
            yield
        finally:
            self._compiled = before

    @property
    def compiled(self) -> bool:
        return self._compiled is not None

    def expect(self, cases: int) -> None:
        """Prepare for a run of so many cases: compile if `backbone.compile` says so."""
        asked = pays(self.device, cases) if self.compiling == "auto" else self.compiling
        if asked and not self.compiled:
            self.compile()


B = TypeVar("B", bound=Compiles)


def as_set(backbone: B, compiling: Compile) -> B:
    """The backbone with its setting `compile`; `auto` waits for the number of cases."""
    backbone.compiling = compiling
    backbone.expect(0)
    return backbone
