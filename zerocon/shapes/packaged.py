"""Write the packaged weights: half precision on disk, float32 in use."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn


def save_half(module: nn.Module, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {k: _half(v).contiguous() for k, v in module.state_dict().items()}
    save_file(state, file, metadata={"format": "pt"})


def plain_float32(config: Path) -> None:
    """Make a plain `from_pretrained` compute in float32, whatever the file's precision."""
    data = json.loads(config.read_text())
    for part in (data, *(v for v in data.values() if isinstance(v, dict))):
        if "dtype" in part:
            part["dtype"] = "float32"
    config.write_text(json.dumps(data, indent=2) + "\n")


def _half(value: Tensor) -> Tensor:
    return value.to(torch.float16) if value.is_floating_point() else value
