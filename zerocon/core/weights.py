"""Load weights from safe formats, and check that all tensors come from the file.

Libraries initialise missing tensors randomly or leave them uninitialised, and ignore unexpected
ones, with at most a log message. Here missing, unexpected and wrongly shaped tensors are errors
that name them. Exceptions without effect are listed in `HARMLESS`, or by the caller.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from zerocon.core.checks import ConfigError

Shape = tuple[int, ...]
Model = TypeVar("Model")

# Buffers saved by older versions of transformers; models now compute them.
HARMLESS: tuple[str, ...] = ("position_ids", "*.position_ids", "*.rotary_emb.inv_freq")
# The packaged models of the shapes world.
PACKAGED = Path(__file__).parent.parent / "shapes" / "weights"

HALVES = {"F16": torch.float16, "BF16": torch.bfloat16}
HALF = tuple(HALVES.values())
PICKLES = (".bin", ".pt", ".ckpt", ".pth", ".pkl")
HASHED = (".safetensors", ".json", ".txt")
NAMED = 5  # tensors that a message names


# Where `zerocon download` puts models and judges, if it is set; otherwise `downloads`.
DOWNLOADS = "ZEROCON_DOWNLOADS"


class WeightsError(ConfigError):
    """A model can't be loaded from these weights. The message names the problem."""


def downloads_folder() -> Path:
    """`$ZEROCON_DOWNLOADS`, or `downloads` in the working folder."""
    return Path(os.environ.get(DOWNLOADS, "downloads"))


def is_download(path: str) -> bool:
    """Whether the path is in the downloads' folder: `downloads/sd15` is no hub id."""
    return downloads_folder() in Path(path).parents


def read_tensors(file: Path, what: str) -> dict[str, Tensor]:
    """All tensors of a safetensors file; error messages call its content `what`."""
    _check_file(file, what)
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(_unreadable(file, what, error)) from error


def read_published_pickle(file: Path, what: str) -> dict[str, Tensor]:
    """The tensors of a `.pth` file, the only published format of some models.

    Uses torch's `weights_only` reader, which refuses anything that could run code.
    """
    if not file.is_file():
        raise WeightsError(f"{what} can't be loaded: there is no file {file}")
    found: Any = None
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{what} can't be loaded from {file}: it is damaged, or has more than tensors "
            f"({reason})"
        ) from error
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise WeightsError(f"{what} can't be loaded from {file}: it is not a dictionary of tensors")
    return {str(name): value for name, value in found.items()}


def load_strictly(
    module: nn.Module,
    state: Mapping[str, Tensor],
    what: str,
    place: object,
    *,
    harmless: Sequence[str] = (),
    original: Mapping[str, str] | None = None,
) -> None:
    """Copy the state into the module; raise if tensors do not fit.

    `original`: the tensors' names in the file, if the state was converted.
    """
    names = original or {}
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    both = [name for name in wanted if name in found]
    check(
        what,
        place,
        missing=[names.get(name, name) for name in wanted.keys() - found.keys()],
        unexpected=[names.get(name, name) for name in found.keys() - wanted.keys()],
        shapes=[(names.get(n, n), found[n], wanted[n]) for n in both if found[n] != wanted[n]],
        harmless=harmless,
    )
    module.load_state_dict({name: state[name] for name in wanted})


def load_pretrained(
    make: Callable[..., Any],
    path: str,
    what: str,
    *,
    harmless: Sequence[str] = (),
    advice: str = "",
    **options: Any,
) -> Any:
    """Load by `from_pretrained` of transformers or diffusers (`make`), and check the tensors.

    A hub id is looked up in the hub's cache on this machine; nothing is downloaded. `advice` is
    added to the message if the model is missing or can't be read.
    """
    subfolder = str(options.get("subfolder", ""))
    _refuse_pickles(Path(path).expanduser() / subfolder, what)
    try:
        model, info = make(
            path,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the loading information
            local_files_only=True,
            **options,
        )
    except Exception as error:  # the libraries raise errors of any kind over a damaged file
        raise WeightsError(_not_loaded(what, path, error, advice, options)) from error
    place = Path(path, subfolder) if subfolder else path
    check(
        what,
        place,
        missing=info["missing_keys"],
        unexpected=info["unexpected_keys"],
        shapes=[(name, tuple(a), tuple(b)) for name, a, b in info["mismatched_keys"]],
        harmless=harmless,
    )
    if info.get("error_msgs"):
        raise WeightsError(f"{what} from {place} does not fit: {'; '.join(info['error_msgs'])}")
    return model


def load_beside(
    make: Callable[..., Any], path: str, what: str, *, advice: str = "", **options: Any
) -> Any:
    """Load what accompanies weights (a tokenizer, a processor) by its `from_pretrained`."""
    try:
        made = make(path, local_files_only=True, **options)
    except Exception as error:  # the libraries raise errors of any kind over a damaged file
        raise WeightsError(_not_loaded(what, path, error, advice, options)) from error
    tokenizer = getattr(made, "tokenizer", made)
    # Without vocabulary files, transformers makes a vocabulary of special tokens only.
    if hasattr(tokenizer, "get_vocab") and _is_without_words(tokenizer):
        raise WeightsError(
            f"{what} can't be loaded from {path!r}: the files of its vocabulary (tokenizer.json, "
            "or vocab.json and merges.txt) are missing" + (f". {advice}" if advice else "")
        )
    return made


def _is_without_words(tokenizer: Any) -> bool:
    return set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens)


def check(
    what: str,
    place: object,
    *,
    missing: Collection[str] = (),
    unexpected: Collection[str] = (),
    shapes: Sequence[tuple[str, Shape, Shape]] = (),
    harmless: Sequence[str] = (),
) -> None:
    """Raise if weights do not fit; `shapes`: (name, in the file, in the model)."""
    strange = [n for n in unexpected if not is_harmless(n, harmless)]
    wrong = [f"{name} is {_shape(a)}, not {_shape(b)}" for name, a, b in sorted(shapes)]
    problems = [
        *([f"{_tensors(missing)} missing: {_named(missing)}"] if missing else []),
        *([f"{_tensors(strange)} unexpected: {_named(strange)}"] if strange else []),
        *([f"{_tensors(wrong)} of another shape: {_named(wrong)}"] if wrong else []),
    ]
    if problems:
        raise WeightsError(f"{what} from {place} does not fit the model. {'; '.join(problems)}")


def is_harmless(name: str, more: Sequence[str] = ()) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in (*HARMLESS, *more))


def check_shards(folder: Path, what: str, variant: str | None = None) -> None:
    """Raise if the index of a model in several files contradicts the files."""
    ending = f".index.{variant}.json" if variant else ".index.json"
    for index in sorted(folder.glob(f"*.safetensors{ending}")):
        listed = _weight_map(index, what)
        held = {
            (name, file) for file in sorted({*listed.values()}) for name in names_in(folder / file)
        }
        wanted = set(listed.items())
        check(
            what,
            index,
            missing=[f"{name} (in {file})" for name, file in wanted - held],
            unexpected=[f"{name} (in {file})" for name, file in held - wanted],
        )


def names_in(file: Path) -> list[str]:
    """The names of a safetensors file's tensors; reads only the header."""
    _check_file(file, "the model")
    try:
        with safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(_unreadable(file, "the model", error)) from error


def half_precision_in(folder: Path, variant: str | None = None) -> torch.dtype | None:
    """The half precision that all tensors of a model's files are stored in; None for others."""
    files = sorted(folder.glob("*.safetensors"))
    chosen = [file for file in files if (variant is None) or f".{variant}" in file.name]
    found = {dtype for file in chosen for dtype in _dtypes_in(file)}
    return HALVES.get(found.pop()) if len(found) == 1 else None


def _dtypes_in(file: Path) -> set[str]:
    """In safetensors' words; reads only the header. A damaged file has none: loading says why."""
    try:
        with safe_open(file, framework="pt") as opened:
            return {str(opened.get_slice(n).get_dtype()) for n in list(opened.keys())}
    except (SafetensorError, OSError, ValueError):
        return set()


def folder_fingerprint(folder: Path) -> str:
    """A short digest of all files that determine the model in `folder`."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in HASHED:
            digest.update(file.relative_to(folder).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def file_fingerprint(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def module_fingerprint(module: nn.Module) -> str:
    """The digest of a model in memory, from its tensors' names and values."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def about_pickle(file: Path, what: str) -> str:
    return (
        f"{what} can't be loaded from {file}: a {file.suffix} file is a pickle, which can run code "
        "when it is read. Use the model's .safetensors file, or convert it with safetensors.torch"
    )


def _check_file(file: Path, what: str) -> None:
    if not file.is_file():
        raise WeightsError(f"{what} can't be loaded: there is no file {file}")
    if file.suffix in PICKLES:
        raise WeightsError(about_pickle(file, what))


def _refuse_pickles(folder: Path, what: str) -> None:
    """Refuse a folder with a model's weights only as pickles."""
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickles = [file for file in sorted(folder.iterdir()) if file.suffix in PICKLES]
    if pickles:
        raise WeightsError(about_pickle(pickles[0], what))


def _weight_map(index: Path, what: str) -> dict[str, str]:
    try:
        return dict(json.loads(index.read_text("utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise WeightsError(f"{what} can't be loaded: {index} is not an index of shards") from error


def _not_loaded(
    what: str, path: str, error: Exception, advice: str, options: Mapping[str, Any]
) -> str:
    revision = options.get("revision")
    if revision and not Path(path).exists() and path.count("/") == 1:
        fetch = f"hf download {path} --revision {revision}"
        return (
            f"{what} {path} is not in the hub's cache on this machine. To fetch it: `{fetch}`"
            + (f". {advice}" if advice else "")
        )
    said = str(error).splitlines()[0] if str(error) else ""
    plain = said and isinstance(error, (OSError, ValueError, RuntimeError, SafetensorError))
    reason = said if plain else f"{type(error).__name__} {said}".strip()
    return f"{what} can't be loaded from {path!r}: {reason}" + (f". {advice}" if advice else "")


def _unreadable(file: Path, what: str, error: Exception) -> str:
    return (
        f"{what} can't be loaded from {file}: it is truncated or not a safetensors file "
        f"({file.stat().st_size} bytes; {str(error).splitlines()[0]})"
    )


def _tensors(names: Collection[str]) -> str:
    return "1 tensor is" if len(names) == 1 else f"{len(names)} tensors are"


def _named(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - NAMED
    return ", ".join(ordered[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _shape(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"
