"""Which code, packages and machine made a run's numbers."""

from __future__ import annotations

import platform
import subprocess
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


def provenance(device: str, dtype: str, seed: int) -> dict[str, Any]:
    """What has to be known to explain a difference between two runs of one config."""
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
    """The revision of the code that runs; empty when it is not from a git checkout."""
    unknown = {"revision": None, "dirty": None}
    # Installed into somebody else's repository, it is not that repository's revision.
    if _git(directory, "ls-files", ".") in (None, ""):
        return unknown
    revision, changes = _git(directory, "rev-parse", "HEAD"), _git(directory, "status", "--short")
    if revision is None or changes is None:
        return unknown
    return {"revision": revision, "dirty": changes != ""}


def _git(directory: Path, *arguments: str) -> str | None:
    """What git answers, or None where there is no git or no repository."""
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
