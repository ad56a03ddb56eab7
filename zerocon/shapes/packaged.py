"""Weights that travel with the package: half precision on disk, single precision in use."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "weights"
WEIGHT_SUFFIXES = (".safetensors", ".json", ".txt")


def save_half(module: nn.Module, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {k: _half(v).contiguous() for k, v in module.state_dict().items()}
    save_file(state, file, metadata={"format": "pt"})


def load_half(file: Path) -> dict[str, Tensor]:
    """The state, floating tensors in float32."""
    state = load_file(file)
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def plain_float32(config: Path) -> None:
    """Make a plain `from_pretrained` compute in float32, whatever the file's precision."""
    data = json.loads(config.read_text())
    for part in (data, *(v for v in data.values() if isinstance(v, dict))):
        if "dtype" in part:
            part["dtype"] = "float32"
    config.write_text(json.dumps(data, indent=2) + "\n")


def fingerprint(folder: Path) -> str:
    """A short digest of all that decides what the model in `folder` computes."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in WEIGHT_SUFFIXES:
            digest.update(file.relative_to(folder).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def file_fingerprint(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def module_fingerprint(module: nn.Module) -> str:
    """Of a model that is in memory only: a digest of its names and values."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _half(value: Tensor) -> Tensor:
    return value.to(torch.float16) if value.is_floating_point() else value
