"""The files that a config's settings name, and the packaged models they use by default.

Nothing is imported or loaded, so a finished run can be checked without its models.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from zerocon.core.naming import class_name
from zerocon.core.source_code import PACKAGE

# Groups and settings without files that affect numbers. A dataset reports its files itself.
NO_FILES = ("runner", "tracker", "hydra", "dataset", "name", "seed")
# Settings with these names are paths even if nothing exists there.
PLACES = ("path", "file", "folder", "config", "model", "captioner", "weights", "checkpoint")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
WEIGHTS = PACKAGE / "shapes" / "weights"
# The packaged model that a class uses unless this setting names another.
PACKAGED = {
    "zerocon.Shapes": ("path", "generator"),
    "zerocon.ClipScore": ("path", "eval_clip"),
    "zerocon.ClipChange": ("path", "eval_clip"),
    "zerocon.StructureDistance": ("path", "eval_structure"),
    "zerocon.DinoSimilarity": ("path", "eval_structure"),
    "zerocon.PerceptualDistance": ("path", "eval_lpips"),
    "zerocon.GroundTruth": ("path", "eval_lpips"),
    "zerocon.Caption": ("captioner", "captioner"),
}
TRUNKS = {"squeeze": "squeezenet1_1", "alex": "alexnet", "vgg": "vgg16"}  # torchvision's names
# In a folder with safetensors, these hold the same weights again; nothing reads them.
OTHER_FORMATS = (".bin", ".ckpt", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".pb", ".ot")
NOT_READ = (".md", ".png", ".jpg", ".jpeg", ".webp", ".gif", ".lock")


def named_files(config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """{place that the config names: the files there}; an empty list if there are none."""
    found: dict[str, list[Path]] = {}
    for group, node in config.items():
        if group not in NO_FILES and isinstance(node, Mapping):
            found |= _of_group(group, cast("Mapping[str, Any]", node))
    return found


def _of_group(group: str, node: Mapping[str, Any]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            found |= _of_group(f"{group}.{key}", cast("Mapping[str, Any]", value))
        elif isinstance(value, (str, Path)) and key != "_target_":
            place = _place(key, str(value), node)
            if place is not None:
                found[f"{group}.{key}={value}"] = files_in(place)
    return found | _packaged(group, node)


def _place(key: str, value: str, node: Mapping[str, Any]) -> Path | None:
    """The path that a setting's value stands for, or None if it is no path."""
    path = Path(value).expanduser()
    if path.exists():
        looks_so = key in PLACES or os.sep in value or path.suffix
        return path if looks_so else None
    if key not in PLACES:
        return None
    revision = node.get(f"{key}_revision", node.get("revision"))
    return _snapshot(value, str(revision)) if HUB_ID.fullmatch(value) and revision else path


def _snapshot(repository: str, revision: str) -> Path:
    """Where huggingface_hub keeps that revision."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    folder = hub / f"models--{repository.replace('/', '--')}"
    if (folder / "refs" / revision).is_file():  # a branch or a tag
        revision = (folder / "refs" / revision).read_text().strip()
    return folder / "snapshots" / revision


def _packaged(group: str, node: Mapping[str, Any]) -> dict[str, list[Path]]:
    setting, folder = PACKAGED.get(class_name(str(node.get("_target_", ""))), ("", ""))
    if not folder or node.get(setting) is not None:
        return {}
    trunk = TRUNKS.get(str(node.get("net")))
    if trunk is not None:
        return {f"{group}.net={node['net']}": _trunk(trunk)}
    return {f"the packaged {folder}": files_in(WEIGHTS / folder)}


def _trunk(name: str) -> list[Path]:
    """Where torchvision keeps downloaded weights."""
    home = os.environ.get("TORCH_HOME", Path.home() / ".cache" / "torch")
    return sorted((Path(home) / "hub" / "checkpoints").glob(f"{name}-*.pth"))


def files_in(place: Path) -> list[Path]:
    """The file itself, or the relevant files in a folder."""
    if not place.is_dir():
        return [place] if place.exists() else []
    files = sorted(_below(place))
    if any(file.suffix == ".safetensors" for file in files):
        files = [file for file in files if file.suffix not in OTHER_FORMATS]
    return files


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() not in NOT_READ:
                yield Path(place, name)
