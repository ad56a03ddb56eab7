"""Clocks and counters of benchmarks: seconds, rows through a network, bytes of tensors."""

from __future__ import annotations

import platform
import time
import weakref
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from zerocon.core.threads import cores
from zerocon.ledger.origin import environment


@dataclass(frozen=True)
class Took:
    """`busy`: processor time, which other processes don't change; on a GPU, the same as `wall`."""

    busy: float
    wall: float


def timed(device: torch.device, action: Callable[[], object]) -> Took:
    before = now(device)
    action()
    after = now(device)
    return Took(after.busy - before.busy, after.wall - before.wall)


def now(device: torch.device) -> Took:
    """Seconds since some moment, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        wall = time.perf_counter()
        return Took(wall, wall)
    return Took(time.process_time(), time.perf_counter())


@dataclass
class Passes:
    """The rows that passed a network, and those of them that a gradient came back for."""

    forward: int = 0
    backward: int = 0

    @contextmanager
    def through(self, network: nn.Module) -> Generator[None]:
        """Count the network's calls, whoever makes them."""
        hook = network.register_forward_pre_hook(self._called, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    def _called(self, _network: nn.Module, given: Any, named: Mapping[str, Any]) -> None:
        latents = given[0] if given else named.get("sample", named.get("hidden_states"))
        assert isinstance(latents, Tensor)
        self.forward += len(latents)
        if torch.is_grad_enabled() and latents.requires_grad:
            self.backward += len(latents)


class Alive(TorchDispatchMode):
    """The bytes of the tensors made inside: how many were alive at once, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_place(t) for t in filter(is_tensor, tree_leaves((args, kwargs)))}
        out = func(*args, **(kwargs or {}))
        for made in filter(is_tensor, tree_leaves(out)):
            if _place(made) not in given:
                storage = made.untyped_storage()
                self.alive += storage.nbytes()
                weakref.finalize(storage, self._freed, storage.nbytes())
        self.most = max(self.most, self.alive)
        return out

    def _freed(self, size: int) -> None:
        self.alive -= size


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def is_tensor(x: object) -> bool:
    return isinstance(x, Tensor)


def peak_bytes(device: torch.device, action: Callable[[], object]) -> int:
    """The most memory that the action's tensors took, beyond what was there before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        return torch.cuda.max_memory_allocated(device) - before
    with Alive() as tensors:
        action()
    return tensors.most


def operations(action: Callable[[], object]) -> int:
    """The floating-point operations of the action's products, convolutions and attention."""
    with FlopCounterMode(display=False) as counted:
        action()
    return counted.get_total_flops()


def product_rate(device: torch.device, dtype: torch.dtype, side: int = 1024) -> float:
    """Operations a second of a large matrix product, the fastest of five times."""
    one = torch.ones(side, side, device=device, dtype=dtype)
    took = [timed(device, lambda: one @ one).busy for _ in range(5)]
    return 2 * side**3 / min(took)


@dataclass
class Stopwatch:
    """Seconds by section. A section within another one is not part of it."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    _open: list[str] = field(default_factory=list[str])
    _since: float = 0.0

    @contextmanager
    def of(self, section: str) -> Generator[None]:
        self.enter(section)
        try:
            yield
        finally:
            self.leave()

    def enter(self, section: str) -> None:
        self._note()
        self._open.append(section)

    def leave(self) -> None:
        self._note()
        self._open.pop()

    def _note(self) -> None:
        at = now(self.device).busy
        if self._open:
            name = self._open[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + at - self._since
        self._since = at


def machine(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What a time depends on besides the code."""
    said = environment(str(device), str(dtype).removeprefix("torch."), 0)
    return {
        "device": said["device_name"],
        "dtype": said["dtype"],
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "versions": {name: said["packages"][name] for name in ("torch", "diffusers", "zerocon")},
        "revision": said["git"]["revision"],
        "clock": "wall" if device.type == "cuda" else "processor",
    }
