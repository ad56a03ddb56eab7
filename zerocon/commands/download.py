"""`zerocon download`: fetch models, judges and datasets, after showing what and how much.

Nothing else in this package reaches the network, but a tracker that is asked to.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zerocon.commands.catalogue import GROUPS, ITEMS, Item, items_of

GB = 10**9
CONVERTED = "model.safetensors"


@dataclass(frozen=True)
class Plan:
    """What one item's download will fetch, as its host described it."""

    name: str
    item: Item
    variant: str | None
    target: Path  # the folder, or the file of a network from torchvision
    commit: str = ""
    files: Mapping[str, int] = field(default_factory=dict[str, int])  # {name: bytes}
    missing: str = ""  # why the host could not be asked

    @property
    def bytes(self) -> int:
        return sum(self.files.values()) or round(self.item.size(self.variant) * GB)

    @property
    def done(self) -> bool:
        """Whether an earlier download of the same files is complete."""
        note = _note_of(self.target)
        if not note.is_file():
            return False
        held = json.loads(note.read_text("utf-8"))
        same = held.get("variant") == self.variant and held.get("commit") == self.commit
        return same and all(
            (self.target / name).is_file() or self.target.is_file() for name in held["files"]
        )


def add(commands: Any) -> None:
    download = commands.add_parser(
        "download", help="fetch models, judges and datasets; shows sizes and licences first"
    )
    download.add_argument(
        "names", nargs="*", metavar="NAME",
        help=f"{', '.join([*ITEMS, *GROUPS])}; default: list them",
    )  # fmt: skip
    download.add_argument(
        "--variant", choices=["fp16"],
        help="the weights that are published in half precision: half the size "
        "(then backbone.variant=fp16)",
    )  # fmt: skip
    download.add_argument(
        "--to", type=Path, metavar="FOLDER",
        help="default: $ZEROCON_DOWNLOADS, or downloads",
    )  # fmt: skip
    download.add_argument("--yes", action="store_true", help="do not ask before downloading")
    download.add_argument("--dry-run", action="store_true", help="only show what it would fetch")
    download.set_defaults(handler=_download)


def _download(options: argparse.Namespace) -> None:
    from zerocon.core.weights import downloads_folder

    folder: Path = options.to or downloads_folder()
    if not options.names:
        print(_listed(folder))
        return
    items = _chosen(options.names, options.variant)
    by_hand = [item for item in items.values() if item.by_hand]
    plans = [
        _plan(name, item, folder, options.variant)
        for name, item in items.items()
        if not item.by_hand
    ]
    for plan in plans:
        print(_described(plan))
    for item in by_hand:
        print(item.by_hand.format(folder=folder / item.folder))
    if not options.dry_run:
        _fetch_all([plan for plan in plans if not plan.done], folder, ask=not options.yes)


def _chosen(names: Sequence[str], variant: str | None) -> dict[str, Item]:
    from zerocon.core.checks import ConfigError, one_of

    for name in names:
        one_of("name", name, [*ITEMS, *GROUPS])
    items = items_of(list(names))
    whole = [name for name, item in items.items() if variant and not item.half_gigabytes]
    if whole:
        raise ConfigError(
            f"--variant {variant}: {', '.join(whole)} {'is' if len(whole) == 1 else 'are'} not "
            "published in two precisions; download without --variant"
        )
    return items


def _plan(name: str, item: Item, folder: Path, variant: str | None) -> Plan:
    """Ask the host for the files' names and sizes; nothing is fetched."""
    if item.trunk:
        return _trunk_plan(name, item, folder)
    from huggingface_hub import HfApi

    target = folder / item.folder
    try:
        found: Any = HfApi().repo_info(
            item.repository, repo_type=item.kind, revision=item.revision, files_metadata=True
        )
    except Exception as error:  # noqa: BLE001 - of the hub, the network, or the system
        commit = item.revision if item.pinned else ""
        return Plan(name, item, variant, target, commit, missing=_reason(error, item))
    files = {f.rfilename: int(f.size or 0) for f in found.siblings}
    wanted = {n: size for n, size in files.items() if item.wanted(n, variant)}
    return Plan(name, item, variant, target, str(found.sha), wanted, _lacking(item, wanted))


def _lacking(item: Item, files: Mapping[str, int]) -> str:
    """Describe parts of the model for which the repository has no suitable weights."""
    parts = item.parts or {}
    without = [p for p, stem in parts.items() if stem and not _has_weights(p, files)]
    if without:
        return f"its repository has no safetensors weights of this kind for {', '.join(without)}"
    return "" if files else "its repository has none of the files that are needed"


def _has_weights(part: str, files: Mapping[str, int]) -> bool:
    return any(n.startswith(f"{part}/") and n.endswith(".safetensors") for n in files)


def _trunk_plan(name: str, item: Item, folder: Path) -> Plan:
    file = _trunk_weights(item)
    target = folder / file.url.rpartition("/")[2]
    size = round(file.meta["_file_size"] * 2**20)
    return Plan(name, item, None, target, target.stem.rpartition("-")[2], {target.name: size})


def _trunk_weights(item: Item) -> Any:
    from torchvision.models import get_model_weights

    return next(iter(get_model_weights(item.trunk)))


def _reason(error: Exception, item: Item) -> str:
    """Why the hub did not answer, and what to do, in a line."""
    from huggingface_hub import errors

    page = _page(item)
    if isinstance(error, errors.GatedRepoError):
        return (
            f"its licence must be accepted first: open {page}, agree, then `hf auth login` "
            "(or set HF_TOKEN) and repeat this command"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no {page} for you: it was withdrawn, or needs `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{page} has no commit {item.revision}"
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"the hub can't be reached ({type(error).__name__}: {said})"


def _page(item: Item) -> str:
    return f"https://huggingface.co/{'datasets/' * (item.kind == 'dataset')}{item.repository}"


def _fetch_all(plans: Sequence[Plan], folder: Path, *, ask: bool) -> None:
    from zerocon.core.checks import ConfigError

    broken = [f"{plan.name}: {plan.missing}" for plan in plans if plan.missing]
    if broken:
        raise ConfigError("; ".join(broken))
    if not plans:
        print("nothing to download")
        return
    total = sum(plan.bytes for plan in plans)
    _check_room(folder, total)
    if ask and not _agreed(total, folder):
        print("nothing was downloaded")
        return
    for plan in plans:
        _fetch(plan)
        print(f"{plan.name} is at {plan.target}")


def _check_room(folder: Path, total: int) -> None:
    from zerocon.core.checks import ConfigError

    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if free < total:
        raise ConfigError(
            f"{folder} has {free / GB:.1f} GB free, but {total / GB:.1f} GB are needed; "
            "--to chooses another folder"
        )


def _agreed(total: int, folder: Path) -> bool:
    from zerocon.core.checks import ConfigError

    if not sys.stdin.isatty():
        raise ConfigError("to download without being asked, repeat the command with --yes")
    answer = input(f"Download {_size(total)} to {folder}, under these licences? [y/N] ")
    return answer.strip().lower() in ("y", "yes")


def _fetch(plan: Plan) -> None:
    """Fetch the files, convert what needs it, and note what was fetched beside them."""
    plan.target.parent.mkdir(parents=True, exist_ok=True)
    if plan.item.trunk:
        _fetch_trunk(plan)
    else:
        _fetch_snapshot(plan)
    if plan.item.convert:
        _convert(plan.target, plan.item)
    kept = [CONVERTED if name == plan.item.convert else name for name in plan.files]
    note = {
        "repository": plan.item.repository or _trunk_weights(plan.item).url,
        "commit": plan.commit,
        "variant": plan.variant,
        "licence": plan.item.licence,
        "files": sorted(kept),
    }
    _note_of(plan.target).write_text(json.dumps(note, indent=1) + "\n", "utf-8")


def _note_of(target: Path) -> Path:
    return target.parent / f"{target.name}.download.json"


def _fetch_snapshot(plan: Plan) -> None:
    from huggingface_hub import snapshot_download

    from zerocon.core.checks import ConfigError

    try:
        snapshot_download(
            plan.item.repository,
            repo_type=plan.item.kind,
            revision=plan.commit,
            local_dir=plan.target,
            allow_patterns=list(plan.files),
        )
    except Exception as error:
        raise ConfigError(f"{plan.name}: {_reason(error, plan.item)}") from error


def _fetch_trunk(plan: Plan) -> None:
    """From torchvision's address; the file's name holds the beginning of its SHA-256."""
    import torch

    from zerocon.core.checks import ConfigError

    address = _trunk_weights(plan.item).url
    try:
        torch.hub.download_url_to_file(address, str(plan.target), hash_prefix=plan.commit)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"{plan.name}: {address} can't be fetched ({error})") from error


def _convert(folder: Path, item: Item) -> None:
    """Write the tensors of the published pickle as safetensors, and remove the pickle.

    The pickle is read by torch's `weights_only` reader, which runs no code.
    """
    from safetensors.torch import save_file

    from zerocon.core.weights import read_published_pickle

    pickled = folder / item.convert
    state = read_published_pickle(pickled, item.about)
    separate = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    save_file(separate, folder / CONVERTED, metadata={"format": "pt"})
    pickled.unlink()


def _listed(folder: Path) -> str:
    lines = [
        f"{name:14} {item.about}{_state(item, folder)}\n{'':14} {_sizes(item)}{_terms(item)}"
        for name, item in ITEMS.items()
    ]
    groups = [f"{name:14} {', '.join(members)}" for name, members in GROUPS.items()]
    return "\n".join([*lines, *groups, f"`zerocon download NAME …` fetches them to {folder}."])


def _described(plan: Plan) -> str:
    """What is fetched, from where, how much, on which terms, and where to."""
    state = "is there" if plan.done else f"to {plan.target}"
    lines = [
        f"{plan.name:14} {_source(plan)}: {_plan_size(plan)} {state}",
        f"{'':14} {plan.item.about}; {_terms(plan.item)}",
    ]
    return "\n".join([*lines, *([f"{'':14} {plan.missing}"] if plan.missing else [])])


def _source(plan: Plan) -> str:
    if plan.item.trunk:
        return "download.pytorch.org"
    commit = plan.commit or plan.item.revision
    return f"{plan.item.repository}@{commit[:7]}"


def _plan_size(plan: Plan) -> str:
    return _size(plan.bytes) if plan.files else f"about {_size(plan.bytes)}"


def _sizes(item: Item) -> str:
    if item.by_hand:
        return ""
    half = f" (fp16: {item.half_gigabytes} GB)" if item.half_gigabytes else ""
    return f"{_size(round(item.gigabytes * GB))}{half}; "


def _size(count: int) -> str:
    return f"{count / GB:.1f} GB" if count >= GB / 10 else f"{count / 10**6:.0f} MB"


def _terms(item: Item) -> str:
    return f"{item.licence}; to be accepted on its page" if item.gated else item.licence


def _state(item: Item, folder: Path) -> str:
    if item.trunk:
        return " (is there)" if any(folder.glob(f"{item.trunk}-*.pth")) else ""
    return " (is there)" if (folder / item.folder).is_dir() else ""
