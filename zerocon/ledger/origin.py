"""Where a run's numbers come from: the content of `run.json`, written when the run begins."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from zerocon.ledger.code import code_digest

PACKAGES = (
    "zerocon",
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "safetensors",
    "open_clip_torch",
    "lpips",
    "torchmetrics",
    "numpy",
    "pillow",
)


@dataclass(frozen=True)
class Origin:
    """What must be known about a run besides its settings.

    A fingerprint identifies a model, regardless of the files it was loaded from: runs with the
    same fingerprints are comparable. `inputs` is the digest of everything that this run depends
    on (see `identity`); it changes whenever an input does.
    """

    name: str
    case_ids: list[str]
    columns: list[dict[str, Any]]
    protocol: str
    backbone: dict[str, str]
    dataset: dict[str, str]
    judges: dict[str, str]  # metric -> fingerprint of its judge's weights
    uses_mask: bool | None  # whether the method was given the benchmark's mask; None: unknown
    provenance: dict[str, Any]
    inputs: str = ""  # "": made before inputs were recorded
    mixed: str = ""  # inputs that changed while it was made; its numbers can't be trusted then


def environment(device: str, dtype: str, seed: int) -> dict[str, Any]:
    """Versions and hardware that may explain a difference between two runs with equal inputs."""
    return {
        "seed": seed,
        "device": device,
        "device_name": _device_name(device),
        "dtype": dtype,
        "git": git_state(),
        "code": code_digest(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: installed(name) for name in PACKAGES},
    }


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_state(directory: Path = Path(__file__).parent) -> dict[str, Any]:
    """The revision of the running code; empty if it is not in a git checkout."""
    unknown = {"revision": None, "dirty": None}
    # The package may be installed inside another repository, whose revision is not ours.
    if _git(directory, "ls-files", ".") in (None, ""):
        return unknown
    revision, changes = _git(directory, "rev-parse", "HEAD"), _git(directory, "status", "--short")
    if revision is None or changes is None:
        return unknown
    return {"revision": revision, "dirty": changes != ""}


def _git(directory: Path, *arguments: str) -> str | None:
    """Git's answer, or None if there is no git or no repository."""
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return _processor_name() or platform.machine()


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
