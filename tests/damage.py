"""Damaged weight files, and what the messages about them must say."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

KINDS = ("missing", "unexpected", "shape", "truncated")
STRAY = "stray.weight"


def damage(file: Path, kind: str, name: str) -> str:
    """Damage the file and return a pattern of the message. `name`: the lost or changed tensor."""
    if kind == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        return r"can't be loaded|truncated"
    state = load_file(file)
    if kind == "missing":
        del state[name]
        wanted = f"1 tensor is missing: .*{name.rpartition('.')[2]}"
    elif kind == "unexpected":
        state[STRAY] = torch.zeros(3)
        wanted = f"1 tensor is unexpected: {STRAY}"
    else:
        state[name] = torch.cat([state[name], state[name]])
        wanted = r"1 tensor is of another shape: .* is \[\d+.*, not \["
    save_file(state, file, metadata={"format": "pt"})
    return wanted


def as_pickle(file: Path) -> Path:
    """Replace the safetensors file by a pickle with the same tensors."""
    pickled = file.with_name("pytorch_model.bin")
    torch.save(load_file(file), pickled)
    file.unlink()
    return pickled
